"""What a sweep has found: on disk after each head, as a table and as a plot in the end."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.train.sweep.plot import sweep_svg
from stages.train.sweep.tested import MEAN
from storage.atomic import atomic_path, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.reporter import Reporter
    from stages.train.sweep.variants import Variant

Row = dict[str, Any]
RESULTS, PLOT, _STATE = "results.csv", "plot.svg", "sweep.json"


@dataclass
class Results:
    """The rows of the heads that are done.

    Attributes:
        out: folder of the sweep.
        identity: stands for all that the heads share; results found under another one are not used.
        done: head and seed -> rows, without the coordinates: the next sweep may vary something else.
    """

    out: Path
    identity: str
    done: dict[str, list[Row]]

    @classmethod
    def load(cls, out: Path, identity: str) -> Results:
        """Read what an earlier run of the same sweep left in ``out``."""
        try:
            state = json.loads((out / _STATE).read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            state = {}
        return cls(out, identity, state["done"] if state.get("identity") == identity else {})

    def has(self, variant: Variant, seed: int) -> bool:
        """Say whether this head is done."""
        return _key(variant, seed) in self.done

    def add(self, variant: Variant, seed: int, rows: list[Row]) -> None:
        """Keep a head's rows, now."""
        self.done[_key(variant, seed)] = [{"seed": seed, **row} for row in rows]
        write_text(self.out / _STATE, json.dumps({"identity": self.identity, "done": self.done}))

    def rows(self, variants: Sequence[Variant], seeds: Sequence[int]) -> list[Row]:
        """Return the rows of all heads, in the order of the variants."""
        return [
            {**variant.coordinates, **row}
            for variant in variants
            for seed in seeds
            for row in self.done[_key(variant, seed)]
        ]


def _key(variant: Variant, seed: int) -> str:
    return f"{variant.head.model_dump_json()} {seed}"


def write_results(out: Path, rows: Sequence[Row], variants: Sequence[Variant], reporter: Reporter) -> None:
    """Write ``results.csv`` with all rows, and ``plot.svg`` of the means over the last coordinate that is a number."""
    with atomic_path(out / RESULTS) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    names = list(variants[0].coordinates)
    numeric = [name for name in names if all(type(v.coordinates[name]) in (int, float) for v in variants)]
    if not numeric:
        reporter.note(f"{out / PLOT} is not drawn: no setting that varies is a number")
        return
    means = [row for row in rows if row["set"] == MEAN]
    lines = [name for name in names if name != numeric[-1]]
    write_text(out / PLOT, sweep_svg(means, x=numeric[-1], lines=lines))
