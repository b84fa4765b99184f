"""Geometry of the report's figures: numbers in, coordinates out; ``template/figures.svg.j2`` draws them.

Small figures of one width (``WIDTH`` units, drawn at about one pixel a unit) in a grid stay readable on a phone and on
paper. Coordinates are rounded to hundredths or tenths, so that equal data give equal bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stages.measure.frame import Mean

WIDTH = 360
UNIT = (0.0, 1.0)

_LEFT, _RIGHT, _TOP = 44, 352, 10  # the frame of all figures but bars
_LOW_FLOOR, _FLOOR = 168, 208
_BAR_LEFT, _BAR_RIGHT = 1, 284
_BAR_STEP, _LABEL_HEIGHT, _GROUP_GAP, _LONGEST_LABEL = 12, 16, 9, 44
_HEAT_TOP = 6


class Tick(NamedTuple):
    """A mark on an axis: its position and text."""

    at: float
    text: str


class Bar(NamedTuple):
    """One horizontal bar; ``width`` is None for an undefined value, ``whisker`` None where there is no interval."""

    kind: str
    name: str
    y: float
    width: float | None
    whisker: tuple[float, float] | None
    text: str


class BarGroup(NamedTuple):
    """The bars of one head under its name."""

    label: str
    y: float
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Curve:
    """A curve through (x, y) points.

    Attributes:
        kind: its class in the style sheet.
        label: what it is called.
        x: of each point, ascending.
        y: of each point.
        std: half the width of its band at each point, None where there is no spread; empty: no band.
        note: what the figure's description says of it.
    """

    kind: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    std: Sequence[float | None] = ()
    note: str = ""

    def band(self, limits: tuple[float, float]) -> tuple[list[float], list[float]]:
        """Return the lower and the upper edge of the band, within what the quantity can be."""
        spreads = [spread or 0.0 for spread in self.std]
        low = [max(limits[0], y - spread) for y, spread in zip(self.y, spreads, strict=True)]
        return low, [min(limits[1], y + spread) for y, spread in zip(self.y, spreads, strict=True)]


class Line(NamedTuple):
    """A drawn curve and its band, as lists of SVG points."""

    kind: str
    label: str
    points: str
    band: str


class Square(NamedTuple):
    """One square of a heat map; ``strength`` 0..1 on the side of ``kind`` ("more" or "less")."""

    x: float
    y: float
    width: float
    kind: str
    strength: float
    text: str


class Cloud(NamedTuple):
    """Points of one kind, as one SVG path of dots."""

    kind: str
    label: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What every figure has: texts for those who do not see it, where its drawing ends, and marks on its axes."""

    left: ClassVar[float] = _LEFT
    right: ClassVar[float] = _RIGHT
    below: ClassVar[float] = 36  # room for texts under the floor

    title: str
    description: str
    floor: float
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()

    @property
    def height(self) -> float:
        """Of the whole figure."""
        return self.floor + self.below


@dataclass(frozen=True, kw_only=True)
class BarChart(Chart):
    """Bars on a scale from 0 to 1."""

    left = _BAR_LEFT
    below = 18
    bar_height: ClassVar[float] = 8

    groups: Sequence[BarGroup]


@dataclass(frozen=True, kw_only=True)
class LineChart(Chart):
    """Curves on common scales."""

    x_label: str
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True)
class HeatMap(Chart):
    """Squares over start (x) and window length (y), with frames around some of them."""

    cell_height: ClassVar[float] = 14

    cells: Sequence[Square]
    frames: Sequence[Square]


@dataclass(frozen=True, kw_only=True)
class CloudChart(Chart):
    """Clouds of points without scales: principal components have no unit."""

    left = 2
    right = _RIGHT + 6
    top: ClassVar[float] = _TOP - 6
    below = 2

    clouds: Sequence[Cloud]


class Figure(NamedTuple):
    """A chart with its caption, and the (kind, label) of its curves where the section has no legend for all."""

    name: str
    chart: Chart
    detail: str = ""
    legend: Sequence[tuple[str, str]] = ()


def bar_chart(
    title: str, heads: Iterable[tuple[str, Sequence[tuple[str, str, Mean, tuple[float, float] | None]]]]
) -> BarChart:
    """Lay out grouped bars.

    Args:
        title: what the figure shows.
        heads: head name -> (kind for the colour, metric name, value, interval) of each bar.
    """
    axis = _Axis(*UNIT, _BAR_LEFT, _BAR_RIGHT, digits=2)
    groups, words, y = [], [], 0.0
    for head, values in heads:
        bars = []
        for i, (kind, name, mean, interval) in enumerate(values):
            width = text = None
            if mean.value is not None:
                width = round(axis.at([mean.value])[0] - _BAR_LEFT, 2)
                text = f"{mean.value:.3f}" + ("" if mean.std is None else f" ±{mean.std:.3f}")
            low, high = axis.at(interval or UNIT)
            whisker = (low, high) if interval else None
            bars.append(Bar(kind, name, y + _LABEL_HEIGHT + i * _BAR_STEP, width, whisker, text or "undefined"))
        label = head if len(head) <= _LONGEST_LABEL else f"{head[: _LONGEST_LABEL - 1]}…"
        groups.append(BarGroup(label, y + _LABEL_HEIGHT - 6, bars))
        words.append(f"{head}: {', '.join(f'{bar.name} {bar.text}' for bar in bars)}.")
        y += _LABEL_HEIGHT + len(values) * _BAR_STEP + _GROUP_GAP
    shares = (0, 0.25, 0.5, 0.75, 1)
    ticks = [Tick(round(_BAR_LEFT + share * (_BAR_RIGHT - _BAR_LEFT), 2), f"{share:g}") for share in shares]
    return BarChart(title=title, description=" ".join(words), floor=y - 4, groups=groups, x_ticks=ticks)


def band_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    limits: tuple[float, float],
    scale: tuple[float, float],
    x_label: str = "transition k (block k to block k + 1)",
    x_names: Sequence[str] = (),
) -> LineChart:
    """Lay out curves with bands over whole numbers: transitions, or places.

    Args:
        title: what the figure shows.
        curves: over the same ``x``.
        limits: smallest and largest value that the quantity can have; bands are cut there.
        scale: the values at the floor and the top of the y axis, common to figures that are to be compared.
        x_label: name of the x axis.
        x_names: texts of the places on the x axis, one for each of ``x``; none: the numbers themselves.
    """
    x = curves[0].x
    along = _Axis(x[0], max(x[-1], x[0] + 1), _LEFT, _RIGHT, digits=2)
    up = _Axis(*scale, _LOW_FLOOR, _TOP, digits=2)
    lines, words = [], []
    for curve in curves:
        low, high = curve.band(limits)
        here = along.at(curve.x)
        points = " ".join(f"{x},{y}" for x, y in zip(here, up.at(curve.y), strict=True))
        edge = zip([*here, *reversed(here)], up.at([*high, *reversed(low)]), strict=True)
        lines.append(Line(curve.kind, curve.label, points, " ".join(f"{x},{y}" for x, y in edge)))
        most = int(np.argmax(curve.y))
        where = x_names[most] if x_names else f"transition {curve.x[most]}"
        words.append(f"{curve.label}: from {min(curve.y):.3g} to {max(curve.y):.3g}, most at {where}.")
    numbers = range(int(x[0]), int(x[-1]) + 1, max(1, math.ceil(len(x) / 8)))
    x_ticks = along.ticks(list(zip(x, x_names, strict=True)) if x_names else [(k, str(k)) for k in numbers])
    axes = {"x_ticks": x_ticks, "y_ticks": up.ticks()}
    return LineChart(title=title, description=" ".join(words), floor=_LOW_FLOOR, x_label=x_label, lines=lines, **axes)


def curve_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str,
    x_scale: tuple[float, float] = UNIT,
    y_scale: tuple[float, float] = UNIT,
    diagonal: bool = False,
) -> LineChart:
    """Lay out curves through any points, without bands.

    Args:
        title: what the figure shows.
        curves: each with at least one point.
        x_label: name of the x axis.
        x_scale: values at its ends.
        y_scale: values at the ends of the y axis.
        diagonal: whether a line from corner to corner is drawn, for chance or for perfect calibration.
    """
    along, up = _Axis(*x_scale, _LEFT, _RIGHT), _Axis(*y_scale, _FLOOR, _TOP)
    lines = [Line("chance", "", f"{_LEFT},{_FLOOR} {_RIGHT},{_TOP}", "")] if diagonal else []
    for curve in curves:
        points = zip(along.at(curve.x), up.at(curve.y), strict=True)
        lines.append(Line(curve.kind, curve.label, " ".join(f"{x:g},{y:g}" for x, y in points), ""))
    words = " ".join(f"{curve.label}: {curve.note}." for curve in curves if curve.note)
    axes = {"x_ticks": along.ticks(), "y_ticks": up.ticks()}
    return LineChart(title=title, description=words or title, floor=_FLOOR, x_label=x_label, lines=lines, **axes)


def heat_map(title: str, cells: Sequence[tuple[int, int, float]], frames: Sequence[tuple[int, int, str]]) -> HeatMap:
    """Lay out AUCs over windows.

    Args:
        title: what the figure shows.
        cells: (first block, n, AUC); 0.5 is the middle of the scale.
        frames: (first block, n, whose window it is).
    """
    starts, lengths = sorted({start for start, _, _ in cells}), sorted({n for _, n, _ in cells})
    step = HeatMap.cell_height
    width = min(30.0, (_RIGHT - _LEFT) / (starts[-1] - starts[0] + 1))
    drawn, marked = [], []
    for start, n, auc in cells:
        x, y = round(_LEFT + (start - starts[0]) * width, 2), _HEAT_TOP + (n - lengths[0]) * step
        kind, strength = "more" if auc >= 0.5 else "less", round(min(1.0, abs(auc - 0.5) * 2), 3)
        drawn.append(Square(x, y, round(width, 2), kind, strength, f"blocks {start} to {start + n - 1}: {auc:.3f}"))
        owners = [owner for first, length, owner in frames if (first, length) == (start, n)]
        if owners:
            marked.append(Square(x, y, round(width, 2), "chosen", 1.0, f"chosen by {', '.join(owners)}"))
    best = max(cells, key=lambda cell: abs(cell[2] - 0.5))
    words = f"Most telling: blocks {best[0]} to {best[0] + best[1] - 1}, AUC {best[2]:.3f}."
    shown = starts[:: 1 if len(starts) <= 12 else 2]
    x_ticks = [Tick(round(_LEFT + (s - starts[0] + 0.5) * width, 2), str(s)) for s in shown]
    y_ticks = [Tick(_HEAT_TOP + (n - lengths[0] + 0.5) * step, str(n)) for n in lengths]
    floor, axes = _HEAT_TOP + len(lengths) * step, {"x_ticks": x_ticks, "y_ticks": y_ticks}
    return HeatMap(title=title, description=words, floor=floor, cells=drawn, frames=marked, **axes)


def cloud_chart(title: str, clouds: Sequence[tuple[str, str, NDArray[np.float64]]], words: str) -> CloudChart:
    """Lay out clouds of points (kind, label, (M, 2)); each axis is stretched to the frame."""
    every = np.concatenate([points for _, _, points in clouds])
    low, high = every.min(axis=0), every.max(axis=0)
    high = np.where(high > low, high, low + 1)
    along, up = _Axis(low[0], high[0], 8, _RIGHT), _Axis(low[1], high[1], _FLOOR, _TOP)
    drawn = []
    for kind, label, points in clouds:
        places = zip(along.at(points[:, 0]), up.at(points[:, 1]), strict=True)
        drawn.append(Cloud(kind, label, "".join(f"M{x:g} {y:g}h0" for x, y in places)))
    return CloudChart(title=title, description=words, floor=_FLOOR + 6, clouds=drawn)


def common_scale(curves: Sequence[Curve], limits: tuple[float, float]) -> tuple[float, float]:
    """Return a y scale that holds all curves and bands, ending on round numbers."""
    bands = [curve.band(limits) for curve in curves]
    low, high = min(value for low, _ in bands for value in low), max(value for _, high in bands for value in high)
    step = _step(low, high)
    low, high = (round(end * step, 12) for end in (math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)))
    return (low, high) if high > low else (low, low + step)


class _Axis(NamedTuple):
    """Places values between ``low`` and ``high`` between two coordinates."""

    low: float
    high: float
    start: float
    end: float
    digits: int = 1

    def at(self, values: Sequence[float] | NDArray[np.float64]) -> list[float]:
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        share = (inside - self.low) / (self.high - self.low)
        return [round(place, self.digits) for place in (self.start + share * (self.end - self.start)).tolist()]

    def ticks(self, marks: Sequence[tuple[float, str]] = ()) -> list[Tick]:
        """Place these marks, or three to eight round numbers."""
        if not marks:
            step = _step(self.low, self.high)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            marks = [(value, f"{value:g}") for value in (round(i * step, 12) for i in range(first, last + 1))]
        return [Tick(at, text) for at, (_, text) in zip(self.at([at for at, _ in marks]), marks, strict=True)]


def _step(low: float, high: float) -> float:
    span = (high - low) or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    return next(factor * power for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (factor * power) <= 5 + 1e-9)
