"""What all tests share: a reporter that remembers, places to write to, and clones of the project."""

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
import torch

import stages  # noqa: F401 - what MKL reads at its first call has to be set before torch makes one
from running import PROJECT, commit, git, run_command

# Tests run side by side; more threads than cores make small tensors many times slower.
torch.set_num_threads(1)
# An example that is slow on a busy machine is no failure, and every run tries the same examples.
hypothesis.settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("repeatable")

# What somebody set for this project's own work, for a terminal, or in a git hook must not reach the tests.
for _name in list(os.environ):
    if _name.startswith(
        ("LTDPIPE_", "DVC_", "TTY_", "FORCE_COLOR", "COLUMNS", "LINES", "GIT_DIR", "GIT_INDEX", "GIT_WORK")
    ):
        del os.environ[_name]
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
# Commands inherit what is ignored, and a shell ignores Ctrl-C for what it runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)


class RecordingReporter:
    """Keeps what a stage said; fulfils ``stages.reporter.Reporter``."""

    def __init__(self):
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.done = 0
        self.failed = 0

    def note(self, line):
        self.notes.append(line)

    def warn(self, line):
        self.warnings.append(line)

    @contextmanager
    def progress(self, what, total, unit):
        yield self

    def advance(self, count, *, failed=0, waiting=0.0):
        self.done += count
        self.failed += failed


@pytest.fixture
def reporter():
    return RecordingReporter()


@pytest.fixture(scope="session")
def quiet_reporter():
    """A reporter for fixtures that outlive a test."""
    return RecordingReporter()


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    """A feature store of the test's own, and a cache folder for what is remembered of sound shards."""
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    return tmp_path / "store"


@pytest.fixture(scope="session")
def other_file_system(tmp_path_factory):
    """A folder on another file system than the tests' own."""
    here = tmp_path_factory.getbasetemp().stat().st_dev
    places = [Path(place) for place in ("/dev/shm", "/run", "/var/tmp", "/tmp", PROJECT)]
    writable = (place for place in places if place.is_dir() and os.access(place, os.W_OK))
    place = next((place for place in writable if place.stat().st_dev != here), None)
    if place is None:
        pytest.fail(f"no second file system that may be written to was found ({', '.join(map(str, places))})")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def clone_of_project():
    """Make a committed git clone of the project, as it is now, in an empty folder."""

    def clone(folder):
        listed = run_command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=PROJECT).stdout
        for name in filter(None, listed.split("\0")):
            source, target = PROJECT / name, folder / name
            if source.is_file():  # a tracked file may be deleted in the working tree
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        (folder / "dvc.lock").unlink(missing_ok=True)  # it belongs to the full demo study
        git(folder, "init", "-q")
        commit(folder, "start")
        return folder

    return clone
