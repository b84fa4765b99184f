"""What a sweep has found: on disk after each head; in the end a table, and a plot of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np

from stages.train.sweep.tested import MEAN, Row
from storage.atomic import write_text, write_texts
from storage.csv_text import csv_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.reporter import Reporter
    from stages.train.sweep.variants import Variant

_TABLE, _PLOT, _STATE = "results.csv", "plot.svg", "sweep.json"

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP, _LEGEND = 420, 260, 60, 40, 50, 70, 18
# Okabe and Ito's colours, which stay apart for colour-blind readers.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


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
    files = {_TABLE: csv_text(list(rows[0]), [[row[name] for name in rows[0]] for row in rows])}
    names = list(variants[0].coordinates)
    numeric = [name for name in names if all(type(v.coordinates[name]) in (int, float) for v in variants)]
    if not numeric:
        reporter.note(f"{out / _PLOT} is not drawn: no setting that varies is a number")
    else:
        means = [row for row in rows if row["set"] == MEAN]
        lines = [name for name in names if name != numeric[-1]]
        files[_PLOT] = sweep_svg(means, x=numeric[-1], lines=lines)
    write_texts({out / name: text for name, text in files.items()})


def sweep_svg(rows: Sequence[Row], *, x: str, lines: Sequence[str]) -> str:
    """Return an SVG document: accuracy and average precision over one setting, a line for each value of the others.

    Args:
        rows: each with ``accuracy``, ``ap`` (0..1), ``x`` (a number) and ``lines``; rows that agree in x and lines
            (seeds, corpora) are averaged.
        x: name of the setting on the horizontal axis.
        lines: names of the settings that tell the lines apart.
    """
    curves: dict[str, dict[float, list[Row]]] = {}
    for row in rows:
        name = ", ".join(f"{setting} = {row[setting]}" for setting in lines)
        curves.setdefault(name, {}).setdefault(row[x], []).append(row)
    bottom = _TOP + _HEIGHT + _BOTTOM
    width = 2 * (_LEFT + _WIDTH) + _GAP + 40
    height = bottom + _LEGEND * (len(curves) if lines else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for number, (metric, title) in enumerate((("accuracy", "Accuracy"), ("ap", "Average precision"))):
        means = [
            {value: float(np.mean([row[metric] for row in curve[value]])) for value in sorted(curve)}
            for curve in curves.values()
        ]
        lowest = float(np.floor(min(row[metric] for row in rows) * 10) / 10)
        parts += _panel(title, x, means, lowest=lowest, left=_LEFT + number * (_WIDTH + _LEFT + _GAP))
    for number, name in enumerate(curves if lines else ()):
        y = bottom + _LEGEND * number
        parts.append(f'<rect x="{_LEFT}" y="{y - 9}" width="12" height="4" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{_LEFT + 18}" y="{y - 3}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(title: str, x: str, curves: Sequence[Mapping[float, float]], *, lowest: float, left: int) -> list[str]:
    """One pair of axes, up to 1, with the curves in it."""
    ticks = sorted({value for curve in curves for value in curve})
    span_x, span_y, bottom = (ticks[-1] - ticks[0]) or 1, (1 - lowest) or 1, _TOP + _HEIGHT

    def at(x_value: float, y_value: float) -> tuple[float, float]:
        return (
            left + _WIDTH * (x_value - ticks[0]) / span_x,
            _TOP + _HEIGHT * (1 - (y_value - lowest) / span_y),
        )

    parts = [f'<text x="{left}" y="{_TOP - 16}" font-weight="bold">{title}</text>']
    for value in np.linspace(lowest, 1, 6):
        _, y = at(ticks[0], float(value))
        parts.append(f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    parts += [
        f'<text x="{at(value, 1)[0]:.1f}" y="{bottom + 16}" text-anchor="middle" font-size="10">{value:g}</text>'
        for value in ticks
    ]
    parts.append(f'<text x="{left + _WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{escape(x)}</text>')
    for number, curve in enumerate(curves):
        places = [at(*point) for point in curve.items()]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_colour(number)}" stroke-width="1.8"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{_colour(number)}"/>' for a, b in places]
    return parts


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
