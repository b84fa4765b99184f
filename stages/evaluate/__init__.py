"""Heads and features -> stored scores, and the metrics computed from them."""
