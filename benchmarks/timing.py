"""Programs timed in turns, so that other load on the machine falls on all of them alike."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path


def compare(
    what: str,
    programs: Mapping[str, Callable[[], object]],
    *,
    baseline: str,
    rounds: int,
    before: Callable[[], object] = lambda: None,
    before_each: bool = True,
    images: int = 1,
) -> dict[str, float]:
    """Print and return the median seconds of each program, and how many times faster than the baseline it is.

    Args:
        what: is measured.
        programs: name -> program; a first round, which warms up, is not counted.
        baseline: name of the one that the others are compared with.
        rounds: how often each runs.
        before: is done before a program, untimed.
        before_each: before each program; else once a round.
        images: of one run of a program; seconds are given an image.
    """
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for position, (name, program) in enumerate(programs.items()):
            if before_each or position == 0:
                before()
            started = time.perf_counter()
            program()
            times[name].append((time.perf_counter() - started) / images)
    medians = {name: statistics.median(seconds[1:]) for name, seconds in times.items()}
    shown = [f"{name} {1000 * each:.3g} ms (x{medians[baseline] / each:.2f})" for name, each in medians.items()]
    print(f"  {what}: {', '.join(shown)}")
    return medians


def drop(files: Iterable[Path]) -> None:
    """Drop the files' pages from the operating system's cache."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
