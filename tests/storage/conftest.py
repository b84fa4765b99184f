from __future__ import annotations

import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """Each test has its own memory of sound shards, and none sees the developer's store."""
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "default-store"))


@pytest.fixture(scope="session")
def other_file_system(tmp_path_factory):
    """A folder on another file system than the tests' own."""
    here = tmp_path_factory.getbasetemp().stat().st_dev
    for place in ("/dev/shm", "/run", "/var/tmp"):
        if Path(place).is_dir() and Path(place).stat().st_dev != here:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                yield Path(folder)
            return
    pytest.fail("no second file system was found (/dev/shm, /run, /var/tmp)")
