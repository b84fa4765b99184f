"""Stored scores -> metrics, their means, intervals and tests."""
