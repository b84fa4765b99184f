"""What the command line shows of long work, on stderr: a bar on a terminal, plain lines elsewhere, JSON for programs.

File names appear in it: nothing in a line can move a terminal's cursor or change its colours.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS_BETWEEN_LINES = 10.0


class Counter:
    """Counts finished and failed units and shows them at intervals; fulfils ``stages.reporter.Progress``."""

    def __init__(self, total: int | None, unit: str, show: Callable[[Counter], None], *, every: float) -> None:
        self.total, self.unit = total, unit
        self.done, self.failed, self.waited = 0, 0, 0.0
        self._show, self._every = show, every
        self._start = self._shown = time.monotonic()

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Count ``count`` more units as finished, ``failed`` of them failed, and ``waiting`` seconds spent on input."""
        self.done += count
        self.failed += failed
        self.waited += waiting
        if time.monotonic() - self._shown >= self._every:
            self._shown = time.monotonic()
            self._show(self)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return max(time.monotonic() - self._start, 1e-9)

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.done / self.seconds

    def words(self) -> dict[str, str]:
        """Rate, failures and waiting, in words; empty where there are none."""
        return {
            "rate": f"{self.rate:.1f} {self.unit}/s",
            "failed": f"{self.failed} failed" if self.failed else "",
            "waiting": f"input wait {self.waited / self.seconds:.0%}" if self.waited else "",
        }


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
        if not self._console.is_terminal:
            yield (counter := Counter(total, unit, lambda now: self._line(what, now), every=_SECONDS_BETWEEN_LINES))
            if counter.done:
                self._line(what, counter, "done")
            return
        words = [TextColumn(f"{{task.fields[{name}]}}") for name in ("rate", "failed", "waiting")]
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), *words)
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(printable(what), total=total, rate="", failed="", waiting="")

            def show(now: Counter) -> None:
                bar.update(task, completed=now.done)
                bar.tasks[task].fields.update(now.words())

            yield Counter(total, unit, show, every=0)

    def _line(self, what: str, now: Counter, state: str = "") -> None:
        if not state and now.total is not None and now.done:
            state = f"{(now.total - now.done) / now.rate:.0f} s left"
        count = f"{now.done}" if now.total is None else f"{now.done}/{now.total}"
        words = now.words()
        parts = [f"{count} {now.unit}", words["rate"], state, words["failed"], words["waiting"]]
        self.note(f"{what}: {', '.join(filter(None, parts))}")


class JsonReporter:
    """Notes, warnings and progress for a program: one JSON object per line; fulfils ``stages.reporter.Reporter``."""

    def note(self, line: str) -> None:
        """Write a note."""
        self._write(event="note", text=line)

    def warn(self, line: str) -> None:
        """Write a warning."""
        self._write(event="warning", text=line)

    @contextmanager
    def progress(self, what: str, total: int | None, unit: str) -> Iterator[Counter]:
        """Write the progress of ``total`` units."""

        def show(now: Counter) -> None:
            measured = {"failed": now.failed, "rate": round(now.rate, 3), "waiting_s": round(now.waited, 3)}
            self._write(event="progress", what=what, unit=unit, done=now.done, total=total, **measured)

        yield (counter := Counter(total, unit, show, every=_SECONDS_BETWEEN_LINES))
        show(counter)

    def _write(self, **event: object) -> None:
        sys.stderr.write(json.dumps(event) + "\n")
        sys.stderr.flush()
