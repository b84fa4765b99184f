"""Heads and features -> stored scores."""
