"""Geometry of curves, histograms, heat maps and clouds of points; ``template/figures.svg.j2`` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.report.figures import Line, LineChart, Tick, ticks_between

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 44, 352, 10, 208, 244
_HEAT_TOP, _HEAT_CELL = 6, 14


@dataclass(frozen=True)
class Curve:
    """A curve through (x, y) points; ``kind`` is its class in the style sheet."""

    kind: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """One square of a heat map; ``strength`` 0..1 on the side of ``kind`` ("more" or "less")."""

    x: float
    y: float
    width: float
    kind: str
    strength: float
    text: str


@dataclass(frozen=True)
class HeatMap:
    """Squares over start (x) and window length (y), with frames around some of them."""

    title: str
    description: str
    height: float
    left: float
    floor: float
    cell_height: float
    cells: tuple[Cell, ...]
    frames: tuple[Cell, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Cloud:
    """Points of one kind, as one SVG path of dots."""

    kind: str
    label: str
    path: str


@dataclass(frozen=True)
class CloudChart:
    """Clouds of points without scales: principal components have no unit."""

    title: str
    description: str
    height: float
    left: float
    right: float
    top: float
    floor: float
    clouds: tuple[Cloud, ...]


def curve_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str,
    x_scale: tuple[float, float] = (0.0, 1.0),
    y_scale: tuple[float, float] = (0.0, 1.0),
    x_names: Sequence[str] = (),
    diagonal: bool = False,
) -> LineChart:
    """Lay out curves on common scales.

    Args:
        title: what the figure shows.
        curves: each with at least one point.
        x_label: name of the x axis.
        x_scale: values at its ends.
        y_scale: values at the ends of the y axis.
        x_names: texts at x = 0, 1, 2, ... instead of numbers.
        diagonal: whether a line from corner to corner is drawn, for chance or for perfect calibration.
    """
    lines = [Line("chance", "", f"{_LEFT},{_BOTTOM} {_RIGHT},{_TOP}", "")] if diagonal else []
    for curve in curves:
        points = zip(_along(curve.x, x_scale, _LEFT, _RIGHT), _along(curve.y, y_scale, _BOTTOM, _TOP), strict=True)
        lines.append(Line(curve.kind, curve.label, " ".join(f"{x:g},{y:g}" for x, y in points), ""))
    marks = [(float(i), name) for i, name in enumerate(x_names)]
    marks = marks or [(value, f"{value:g}") for value in ticks_between(*x_scale)]
    x_ticks = tuple(Tick(_along([value], x_scale, _LEFT, _RIGHT)[0], text) for value, text in marks)
    y_ticks = tuple(Tick(_along([v], y_scale, _BOTTOM, _TOP)[0], f"{v:g}") for v in ticks_between(*y_scale))
    words = " ".join(f"{curve.label}: {curve.note}." for curve in curves if curve.note)
    return LineChart(title, words or title, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, x_label, tuple(lines), x_ticks, y_ticks)


def heat_map(title: str, cells: Sequence[tuple[int, int, float]], frames: Sequence[tuple[int, int, str]]) -> HeatMap:
    """Lay out AUCs over windows.

    Args:
        title: what the figure shows.
        cells: (first block, n, AUC); 0.5 is the middle of the scale.
        frames: (first block, n, whose window it is).
    """
    starts, lengths = sorted({start for start, _, _ in cells}), sorted({n for _, n, _ in cells})
    width = min(30.0, (_RIGHT - _LEFT) / (starts[-1] - starts[0] + 1))
    drawn, marked = [], []
    for start, n, auc in cells:
        x, y = round(_LEFT + (start - starts[0]) * width, 2), _HEAT_TOP + (n - lengths[0]) * _HEAT_CELL
        kind, strength = "more" if auc >= 0.5 else "less", round(min(1.0, abs(auc - 0.5) * 2), 3)
        drawn.append(Cell(x, y, round(width, 2), kind, strength, f"blocks {start} to {start + n - 1}: {auc:.3f}"))
        owners = [owner for first, length, owner in frames if (first, length) == (start, n)]
        if owners:
            marked.append(Cell(x, y, round(width, 2), "chosen", 1.0, f"chosen by {', '.join(owners)}"))
    best = max(cells, key=lambda cell: abs(cell[2] - 0.5))
    words = f"Most telling: blocks {best[0]} to {best[0] + best[1] - 1}, AUC {best[2]:.3f}."
    floor = _HEAT_TOP + len(lengths) * _HEAT_CELL
    step = 1 if len(starts) <= 12 else 2
    x_ticks = tuple(Tick(round(_LEFT + (s - starts[0] + 0.5) * width, 2), str(s)) for s in starts[::step])
    y_ticks = tuple(Tick(_HEAT_TOP + (n - lengths[0] + 0.5) * _HEAT_CELL, str(n)) for n in lengths)
    frame = (floor + 36, _LEFT, floor, _HEAT_CELL)
    return HeatMap(title, words, *frame, tuple(drawn), tuple(marked), x_ticks, y_ticks)


def cloud_chart(title: str, clouds: Sequence[tuple[str, str, NDArray[np.float64]]], words: str) -> CloudChart:
    """Lay out clouds of points (kind, label, (M, 2)); each axis is stretched to the frame."""
    every = np.concatenate([points for _, _, points in clouds])
    low, high = every.min(axis=0), every.max(axis=0)
    high = np.where(high > low, high, low + 1)
    drawn = []
    for kind, label, points in clouds:
        x = _along(points[:, 0].tolist(), (low[0], high[0]), 8, _RIGHT)
        y = _along(points[:, 1].tolist(), (low[1], high[1]), _BOTTOM, _TOP)
        drawn.append(Cloud(kind, label, "".join(f"M{a:g} {b:g}h0" for a, b in zip(x, y, strict=True))))
    return CloudChart(title, words, _BOTTOM + 8, 2, _RIGHT + 6, _TOP - 6, _BOTTOM + 6, tuple(drawn))


def _along(values: Sequence[float], scale: tuple[float, float], start: float, end: float) -> list[float]:
    low, high = scale
    place = (np.clip(np.asarray(values, dtype=np.float64), low, high) - low) / (high - low)
    return [float(v) for v in np.round(start + place * (end - start), 1)]
