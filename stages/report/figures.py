"""Geometry of the report's figures: numbers in, coordinates out; ``template/figures.svg.j2`` draws them.

Small figures of one width (``WIDTH`` units, drawn at about one pixel a unit) in a grid stay readable on a phone and on
paper. Coordinates are rounded to hundredths, so that equal data give equal bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.evaluate.means import Mean

WIDTH = 360

_BAR_LEFT, _BAR_RIGHT = 1, 284
_BAR_HEIGHT, _BAR_STEP, _LABEL_HEIGHT, _GROUP_GAP = 8, 12, 16, 9
_LINE_LEFT, _LINE_RIGHT, _LINE_TOP, _LINE_BOTTOM, _LINE_HEIGHT = 44, 352, 10, 168, 204


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its position and text."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """One horizontal bar; ``width`` is None for an undefined value, ``whisker`` None where there is no spread."""

    kind: str
    name: str
    y: float
    width: float | None
    whisker: tuple[float, float] | None
    text: str


@dataclass(frozen=True)
class BarGroup:
    """The bars of one head under its name."""

    label: str
    y: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class BarChart:
    """Bars on a scale from 0 to 1."""

    title: str
    description: str
    height: float
    left: float
    floor: float
    bar_height: float
    groups: tuple[BarGroup, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Series:
    """A curve: one value per x; ``std`` (same length) gives the band, None where there is no spread."""

    kind: str
    label: str
    mean: Sequence[float]
    std: Sequence[float | None]

    def bounds(self, limits: tuple[float, float]) -> list[tuple[float, float]]:
        """Return (mean - std, mean + std) for every x, within what the quantity can be."""
        spreads = [spread or 0.0 for spread in self.std]
        low, high = limits
        return [(max(low, m - s), min(high, m + s)) for m, s in zip(self.mean, spreads, strict=True)]


@dataclass(frozen=True)
class Line:
    """A drawn curve and its band, as lists of SVG points."""

    kind: str
    label: str
    points: str
    band: str


@dataclass(frozen=True)
class LineChart:
    """Curves over the transitions of the backbone."""

    title: str
    description: str
    height: float
    left: float
    right: float
    floor: float
    x_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def bar_chart(
    title: str, heads: Sequence[tuple[str, Sequence[tuple[str, str, Mean, tuple[float, float] | None]]]]
) -> BarChart:
    """Lay out grouped bars.

    Args:
        title: what the figure shows.
        heads: head name -> (kind for the colour, metric name, value, interval) of each bar.
    """
    groups, words, y = [], [], 0.0
    for head, values in heads:
        bars = tuple(_bar(*value, y=y + _LABEL_HEIGHT + i * _BAR_STEP) for i, value in enumerate(values))
        groups.append(BarGroup(head if len(head) <= 44 else f"{head[:43]}…", y + _LABEL_HEIGHT - 6, bars))
        words.append(f"{head}: {', '.join(f'{bar.name} {bar.text}' for bar in bars)}.")
        y += _LABEL_HEIGHT + len(values) * _BAR_STEP + _GROUP_GAP
    ticks = tuple(Tick(_x(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1))
    return BarChart(title, " ".join(words), y + 14, _BAR_LEFT, y - 4, _BAR_HEIGHT, tuple(groups), ticks)


def line_chart(
    title: str,
    x: Sequence[int],
    series: Sequence[Series],
    *,
    limits: tuple[float, float],
    scale: tuple[float, float],
    x_label: str = "transition k (block k to block k + 1)",
    x_names: Sequence[str] = (),
) -> LineChart:
    """Lay out curves with bands.

    Args:
        title: what the figure shows.
        x: whole numbers, ascending: transitions, or places.
        series: curves over ``x``.
        limits: smallest and largest value that the quantity can have; bands are cut there.
        scale: the values at the floor and the top of the y axis, common to figures that are to be compared.
        x_label: name of the x axis.
        x_names: texts of the places on the x axis, one for each of ``x``; none: the numbers themselves.
    """
    low, high = scale
    span = max(x[-1] - x[0], 1)

    def px(value: float) -> float:
        return round(_LINE_LEFT + (value - x[0]) / span * (_LINE_RIGHT - _LINE_LEFT), 2)

    def py(value: float) -> float:
        return round(_LINE_BOTTOM - (value - low) / (high - low) * (_LINE_BOTTOM - _LINE_TOP), 2)

    lines, words = [], []
    for curve in series:
        bounds = curve.bounds(limits)
        points = " ".join(f"{px(k)},{py(value)}" for k, value in zip(x, curve.mean, strict=True))
        edge = [(k, top) for k, (_, top) in zip(x, bounds, strict=True)]
        edge += [(k, bottom) for k, (bottom, _) in reversed(list(zip(x, bounds, strict=True)))]
        lines.append(Line(curve.kind, curve.label, points, " ".join(f"{px(k)},{py(value)}" for k, value in edge)))
        least, most = min(curve.mean), max(curve.mean)
        where = x_names[_arg_max(curve.mean)] if x_names else f"transition {x[_arg_max(curve.mean)]}"
        words.append(f"{curve.label}: from {least:.3g} to {most:.3g}, most at {where}.")
    y_ticks = tuple(Tick(py(value), f"{value:g}") for value in ticks_between(low, high))
    steps = range(x[0], x[-1] + 1, max(1, math.ceil(len(x) / 8)))
    marks = list(zip(x, x_names, strict=True)) if x_names else [(k, str(k)) for k in steps]
    x_ticks = tuple(Tick(px(k), text) for k, text in marks)
    frame = (_LINE_HEIGHT, _LINE_LEFT, _LINE_RIGHT, _LINE_BOTTOM)
    return LineChart(title, " ".join(words), *frame, x_label, tuple(lines), x_ticks, y_ticks)


def common_scale(series: Sequence[Series], limits: tuple[float, float]) -> tuple[float, float]:
    """Return a y scale that holds all curves and bands, ending on round numbers."""
    bounds = [bound for curve in series for bound in curve.bounds(limits)]
    low, high = min(bound[0] for bound in bounds), max(bound[1] for bound in bounds)
    step = _step(low, high)
    low, high = (round(end * step, 12) for end in (math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)))
    return (low, high) if high > low else (low, low + step)


def ticks_between(low: float, high: float) -> list[float]:
    """Return three to eight round numbers from ``low`` to ``high``."""
    step = _step(low, high)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _step(low: float, high: float) -> float:
    span = (high - low) or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    return next(factor * power for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (factor * power) <= 5 + 1e-9)


def _bar(kind: str, name: str, mean: Mean, interval: tuple[float, float] | None, *, y: float) -> Bar:
    if mean.value is None:
        return Bar(kind, name, y, None, None, "undefined")
    whisker = None if interval is None else (_x(interval[0]), _x(interval[1]))
    spread = "" if mean.std is None else f" ±{mean.std:.3f}"
    return Bar(kind, name, y, round(_x(mean.value) - _BAR_LEFT, 2), whisker, f"{mean.value:.3f}{spread}")


def _x(value: float) -> float:
    return round(_BAR_LEFT + value * (_BAR_RIGHT - _BAR_LEFT), 2)


def _arg_max(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
