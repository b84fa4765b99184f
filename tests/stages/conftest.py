"""Stages keep what they make, and what is unfinished, in a store."""

import pytest


@pytest.fixture(autouse=True)
def store(own_store):
    """A store of the test's own."""
    return own_store


@pytest.fixture(scope="session")
def browser():
    """A real browser for all pages."""
    from browser import headless_browser

    with headless_browser() as driver:
        yield driver
