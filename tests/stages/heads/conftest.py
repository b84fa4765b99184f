from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def store(own_store: Path) -> Path:
    """A store of the test's own: unfinished training is kept there."""
    return own_store
