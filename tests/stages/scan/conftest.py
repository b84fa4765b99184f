"""A reporter that outlives a test."""

from contextlib import contextmanager

import pytest


class _Quiet:
    def note(self, line):
        pass

    def warn(self, line):
        pass

    @contextmanager
    def progress(self, what, total, unit):
        yield self

    def advance(self, count, *, failed=0, waiting=0.0):
        pass


@pytest.fixture(scope="session")
def quiet_reporter():
    return _Quiet()
