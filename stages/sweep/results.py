"""The results of a sweep: on disk after each head, and a table in the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.atomic import write_text
from storage.csv_text import csv_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.sweep.tested import Row
    from stages.sweep.variants import Variant

_TABLE, _STATE = "results.csv", "sweep.json"


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


def write_results(out: Path, rows: Sequence[Row]) -> None:
    """Write ``results.csv``."""
    header = list(rows[0])
    write_text(out / _TABLE, csv_text(header, [[row[name] for name in header] for row in rows]))
