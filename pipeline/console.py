"""What the command line shows of long work: a bar on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS_BETWEEN_LINES = 10.0


class ConsoleReporter:
    """Notes, warnings and progress for a person; fulfils ``stages.reporter.Reporter``."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Print a note."""
        self._console.print(line, markup=False)

    def warn(self, line: str) -> None:
        """Print a warning."""
        self._console.print(f"warning: {line}", style="yellow", markup=False)

    @contextmanager
    def progress(self, what: str, total: int | None, unit: str) -> Iterator[_Counter]:
        """Show done/total, rate, time left and failures of ``total`` units; None: their number is not known."""
        if not self._console.is_terminal:
            counter = _Lines(self._console, what, total, unit)
            yield counter
            counter.finish()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}"),
        )
        with Progress(*columns, console=self._console) as bar:
            yield _Bar(bar, what, total, unit)


class _Counter:
    """Counts done and failed units, and their rate; subclasses show it."""

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit = total, unit
        self.done, self.failed = 0, 0
        self._start = time.monotonic()

    def advance(self, count: int, *, failed: int = 0) -> None:
        self.done += count
        self.failed += failed
        self.show()

    def show(self) -> None:
        raise NotImplementedError

    @property
    def rate(self) -> float:
        return self.done / max(time.monotonic() - self._start, 1e-9)

    @property
    def failures(self) -> str:
        return f"{self.failed} failed" if self.failed else ""


class _Bar(_Counter):
    def __init__(self, bar: Progress, what: str, total: int | None, unit: str) -> None:
        super().__init__(total, unit)
        self._bar = bar
        self._task = bar.add_task(what, total=total, rate="", failed="")

    def show(self) -> None:
        self._bar.update(self._task, completed=self.done, rate=f"{self.rate:.1f} {self.unit}/s", failed=self.failures)


class _Lines(_Counter):
    def __init__(self, console: Console, what: str, total: int | None, unit: str) -> None:
        super().__init__(total, unit)
        self._console, self._what = console, what
        self._last = time.monotonic()

    def show(self) -> None:
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._print("" if self.total is None else f"{(self.total - self.done) / self.rate:.0f} s left")

    def finish(self) -> None:
        if self.done:
            self._print("done")

    def _print(self, state: str) -> None:
        count = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        parts = [f"{count} {self.unit}", f"{self.rate:.1f} {self.unit}/s", state, self.failures]
        self._console.print(f"{self._what}: {', '.join(part for part in parts if part)}", markup=False)
