"""What the command line shows of long work: a bar on a terminal, plain lines elsewhere. All of it goes to stderr.

Names of files stand in it: nothing of a line can move a terminal's cursor or change its colours.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS_BETWEEN_LINES = 10.0


class Counter:
    """Counts units done and failed, and has them shown now and then; fulfils ``stages.reporter.Progress``."""

    def __init__(self, total: int | None, unit: str, show: Callable[[Counter], None], *, every: float) -> None:
        self.total, self.unit = total, unit
        self.done, self.failed, self.waited = 0, 0, 0.0
        self._show, self._every = show, every
        self._start = self._shown = time.monotonic()

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Count ``count`` more units as done, ``failed`` of them in vain, ``waiting`` seconds spent on input."""
        self.done += count
        self.failed += failed
        self.waited += waiting
        if time.monotonic() - self._shown >= self._every:
            self._shown = time.monotonic()
            self._show(self)

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / self._seconds

    def words(self) -> dict[str, Any]:
        """Rate, failures and waiting, in words; empty where there is nothing to say."""
        return {
            "rate": f"{self.rate:.1f} {self.unit}/s",
            "failed": f"{self.failed} failed" if self.failed else "",
            "waiting": f"{self.waited / self._seconds:.0%} waiting for data" if self.waited else "",
        }

    @property
    def _seconds(self) -> float:
        return max(time.monotonic() - self._start, 1e-9)


class ConsoleReporter:
    """Notes, warnings and progress for a person; fulfils ``stages.reporter.Reporter``."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Print a note."""
        self._console.print(printable(line), markup=False)

    def warn(self, line: str) -> None:
        """Print a warning."""
        self._console.print(f"warning: {printable(line)}", style="yellow", markup=False)

    @contextmanager
    def progress(self, what: str, total: int | None, unit: str) -> Iterator[Counter]:
        """Show done/total, rate, time left and failures of ``total`` units; None: their number is not known."""
        what = printable(what)
        if not self._console.is_terminal:
            counter = Counter(total, unit, lambda counter: self._line(what, counter), every=_SECONDS_BETWEEN_LINES)
            yield counter
            if counter.done:
                self._line(what, counter, "done")
            return
        rate, *words = (TextColumn(f"{{task.fields[{name}]}}") for name in ("rate", "failed", "waiting"))
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        with Progress(*columns, *words, console=self._console) as bar:
            task = bar.add_task(what, total=total, rate="", failed="", waiting="")

            def update(counter: Counter) -> None:
                bar.update(task, completed=counter.done, **counter.words())

            yield Counter(total, unit, update, every=0)

    def _line(self, what: str, counter: Counter, state: str = "") -> None:
        total = counter.total
        if not state and total is not None and counter.done:
            state = f"{(total - counter.done) / counter.rate:.0f} s left"
        count = f"{counter.done}" if total is None else f"{counter.done}/{total}"
        words = counter.words()
        parts = [f"{count} {counter.unit}", words["rate"], state, words["failed"], words["waiting"]]
        self.note(f"{what}: {', '.join(part for part in parts if part)}")


class JsonReporter:
    """Notes, warnings and progress for a program: one JSON object a line; fulfils ``stages.reporter.Reporter``."""

    def note(self, line: str) -> None:
        """Write a note."""
        _write_json({"event": "note", "text": line})

    def warn(self, line: str) -> None:
        """Write a warning."""
        _write_json({"event": "warning", "text": line})

    @contextmanager
    def progress(self, what: str, total: int | None, unit: str) -> Iterator[Counter]:
        """Write the progress of ``total`` units."""

        def show(counter: Counter) -> None:
            event = {"event": "progress", "what": what, "unit": unit, "done": counter.done, "total": total}
            measured = {"failed": counter.failed, "rate": round(counter.rate, 3), "waiting_s": round(counter.waited, 3)}
            _write_json(event | measured)

        counter = Counter(total, unit, show, every=_SECONDS_BETWEEN_LINES)
        yield counter
        show(counter)


def _write_json(event: dict[str, object]) -> None:
    sys.stderr.write(json.dumps(event) + "\n")
    sys.stderr.flush()
