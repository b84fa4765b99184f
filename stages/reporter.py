"""How a stage reports what it does; the command line shows it, tests record it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Progress(Protocol):
    """One long piece of work under way."""

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Count ``count`` more units as finished, ``failed`` of them failed, and ``waiting`` seconds spent on input."""


class Reporter(Protocol):
    """Where a stage's notes, warnings and progress go."""

    def note(self, line: str) -> None:
        """Say what was done, in one line."""

    def warn(self, line: str) -> None:
        """Say what the user should look at, in one line."""

    def progress(self, what: str, total: int | None, unit: str) -> AbstractContextManager[Progress]:
        """Show the progress of ``total`` units of work named ``what``; None where their number is not known before."""


class SilentReporter:
    """A reporter that says nothing, and the progress of one."""

    def note(self, line: str) -> None:
        """Say nothing."""

    def warn(self, line: str) -> None:
        """Say nothing."""

    def progress(self, what: str, total: int | None, unit: str) -> AbstractContextManager[Progress]:  # noqa: ARG002
        """Show nothing."""
        return nullcontext(self)

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Show nothing."""
