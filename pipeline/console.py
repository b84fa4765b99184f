"""What the command line shows of long work: a bar on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
            TextColumn("{task.fields[waiting]}"),
        )
        with Progress(*columns, console=self._console) as bar:
            yield _Bar(bar, what, total, unit)


class JsonReporter:
    """Notes, warnings and progress for a program: one JSON object a line; fulfils ``stages.reporter.Reporter``."""

    def note(self, line: str) -> None:
        """Write a note."""
        _write_json({"event": "note", "text": line})

    def warn(self, line: str) -> None:
        """Write a warning."""
        _write_json({"event": "warning", "text": line})

    @contextmanager
    def progress(self, what: str, total: int | None, unit: str) -> Iterator[_Counter]:
        """Write the progress of ``total`` units."""
        counter = _JsonLines(what, total, unit)
        yield counter
        counter.write()


def _write_json(event: dict[str, object]) -> None:
    sys.stderr.write(json.dumps(event) + "\n")
    sys.stderr.flush()


class _Counter:
    """Counts done and failed units, and their rate; subclasses show it."""

    def __init__(self, total: int | None, unit: str) -> None:
        self.total, self.unit = total, unit
        self.done, self.failed, self.waited = 0, 0, 0.0
        self._start = time.monotonic()

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        self.done += count
        self.failed += failed
        self.waited += waiting
        self.show()

    def show(self) -> None:
        raise NotImplementedError

    @property
    def waiting(self) -> str:
        """How much of the time went into waiting for data, where somebody counts it."""
        share = self.waited / max(time.monotonic() - self._start, 1e-9)
        return f"{share:.0%} waiting for data" if self.waited else ""

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
        self._task = bar.add_task(what, total=total, rate="", failed="", waiting="")

    def show(self) -> None:
        shown: dict[str, Any] = {
            "rate": f"{self.rate:.1f} {self.unit}/s",
            "failed": self.failures,
            "waiting": self.waiting,
        }
        self._bar.update(self._task, completed=self.done, **shown)


class _JsonLines(_Counter):
    def __init__(self, what: str, total: int | None, unit: str) -> None:
        super().__init__(total, unit)
        self._what = what
        self._last = time.monotonic()

    def show(self) -> None:
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self.write()

    def write(self) -> None:
        event = {"event": "progress", "what": self._what, "unit": self.unit, "done": self.done, "total": self.total}
        measured = {"failed": self.failed, "rate": round(self.rate, 3), "waiting_s": round(self.waited, 3)}
        _write_json(event | measured)


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
        parts.append(self.waiting)
        self._console.print(f"{self._what}: {', '.join(part for part in parts if part)}", markup=False)
