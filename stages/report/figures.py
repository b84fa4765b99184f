"""Geometry of figures: numbers in, charts out; ``template/plots.html.j2`` draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.report.chart import (
    LEFT,
    RIGHT,
    TOP,
    UNIT,
    Axis,
    Bar,
    BarGroup,
    Chart,
    Cloud,
    Difference,
    Line,
    Square,
    Tick,
    rounded_step,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stages.measure.frame import Mean

_LOW_FLOOR, _FLOOR = 182, 222
_BAR_END, _BAR_STEP, _LABEL_HEIGHT, _GROUP_GAP, _LONGEST_LABEL = 284, 12, 16, 9, 44
_CELL_HEIGHT, _NAMES_END = 14, 150


@dataclass(frozen=True)
class Curve:
    """A curve through (x, y) points.

    Attributes:
        kind: its class in the style sheet.
        label: what it is called.
        x: of each point, ascending.
        y: of each point.
        std: half the width of its band at each point, None where there is no spread; empty: no band.
        note: what the figure's words say of it; empty: its range.
    """

    kind: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    std: Sequence[float | None] = ()
    note: str = ""

    def band(self, limits: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and the upper edge of the band, within what the quantity can be."""
        spread = np.array([std or 0.0 for std in self.std] or 0.0)
        return np.clip(self.y - spread, *limits), np.clip(self.y + spread, *limits)


def bar_chart(
    title: str, heads: Iterable[tuple[str, Sequence[tuple[str, str, Mean, tuple[float, float] | None]]]]
) -> Chart:
    """Lay out grouped bars on a scale from 0 to 100 %.

    Args:
        title: what the figure shows.
        heads: head name -> (kind for the colour, metric name, value, interval) of each bar.
    """
    axis = Axis(*UNIT, 1, _BAR_END, digits=2, percent=True)
    groups, words, kinds, y = [], [], {}, 0.0
    for head, values in heads:
        bars = []
        for i, (kind, name, mean, interval) in enumerate(values):
            width, text = None, "undefined"
            if mean.value is not None:
                width = round(axis.at(mean.value) - 1, 2)
                text = f"{100 * mean.value:.2f}" + ("" if mean.std is None else f" ±{100 * mean.std:.2f}")
            whisker = None if interval is None else (axis.at(interval[0]), axis.at(interval[1]))
            bars.append(Bar(kind, name, y + _LABEL_HEIGHT + i * _BAR_STEP, width, whisker, text))
            kinds[kind] = name
        label = head if len(head) <= _LONGEST_LABEL else f"{head[: _LONGEST_LABEL - 1]}…"
        groups.append(BarGroup(label, y + _LABEL_HEIGHT - 6, bars))
        words.append(f"{head}: {', '.join(f'{bar.name} {bar.text}' for bar in bars)}.")
        y += _LABEL_HEIGHT + len(values) * _BAR_STEP + _GROUP_GAP
    return Chart(
        kind="bars", title=title, words=" ".join(words), floor=y - 4, height=y + 26, marks=groups, x_label="percent",
        x_ticks=axis.ticks([0, 0.25, 0.5, 0.75, 1]), legend=[*kinds.items(), ("whisker", "95 % interval over images")],
        left=1, right=_BAR_END,
    )  # fmt: skip


def difference_chart(title: str, rows: Sequence[tuple[str, float, float, float]]) -> Chart:
    """Lay out differences between shares, (label, difference, low, high), around zero."""
    reach = max(0.001, *(abs(end) for _, *values in rows for end in values))
    axis = Axis(-reach, reach, _NAMES_END, RIGHT, digits=2, percent=True)
    marks, floor = [], _BAR_STEP * len(rows) + 6.0
    for i, (label, value, low, high) in enumerate(rows):
        text = f"{100 * value:+.2f}, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}"
        marks.append(Difference(label, 6.0 + _BAR_STEP * i, axis.at(value), (axis.at(low), axis.at(high)), text))
    return Chart(
        kind="differences", title=title, words="; ".join(f"{mark.label}: {mark.text}" for mark in marks), floor=floor,
        height=floor + 36, marks=marks, x_ticks=axis.ticks(), x_label="difference, percentage points",
        legend=[("whisker", "difference with its 95 % interval")], left=_NAMES_END,
    )  # fmt: skip


def band_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    limits: tuple[float, float],
    scale: tuple[float, float],
    y_label: str,
    x_label: str = "transition k (block k to block k + 1)",
    x_names: Sequence[str] = (),
) -> Chart:
    """Lay out curves with bands over whole numbers: transitions, or places.

    Args:
        title: what the figure shows.
        curves: over the same ``x``.
        limits: smallest and largest value that the quantity can have; bands are cut there.
        scale: the values at the floor and the top of the y axis, common to figures that are to be compared.
        y_label: name of the y axis.
        x_label: name of the x axis.
        x_names: texts of the places on the x axis, one for each of ``x``; none: the numbers themselves.
    """
    x = curves[0].x
    percent = limits == UNIT
    along = Axis(x[0], max(x[-1], x[0] + 1), LEFT, RIGHT, digits=2)
    up = Axis(*scale, _LOW_FLOOR, TOP, digits=2, percent=percent)
    lines, words = [], []
    for curve in curves:
        low, high = curve.band(limits)
        edge = _points(along.at([*curve.x, *reversed(curve.x)]), up.at([*high, *reversed(low)]))
        lines.append(Line(curve.kind, curve.label, _points(along.at(curve.x), up.at(curve.y)), edge))
        most = int(np.argmax(curve.y))
        where = x_names[most] if x_names else f"transition {curve.x[most]}"
        least, greatest = (end * (100 if percent else 1) for end in (min(curve.y), max(curve.y)))
        words.append(f"{curve.label}: from {least:.3g} to {greatest:.3g}{' %' if percent else ''}, most at {where}.")
    every = range(int(x[0]), int(x[-1]) + 1, max(1, math.ceil(len(x) / 8)))
    return Chart(
        kind="lines", title=title, words=" ".join(words), floor=_LOW_FLOOR, height=_LOW_FLOOR + 36, marks=lines,
        x_ticks=along.ticks(x, x_names) if x_names else along.ticks(every), y_ticks=up.ticks(),
        x_label=x_label, y_label=y_label, legend=_legend(lines),
    )  # fmt: skip


def curve_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    x_scale: tuple[float, float] = UNIT,
    y_scale: tuple[float, float] = UNIT,
    diagonal: str = "",
) -> Chart:
    """Lay out curves through any points, without bands; the y axis is a share.

    Args:
        title: what the figure shows.
        curves: each with at least one point.
        x_label: name of the x axis.
        y_label: name of the y axis.
        x_scale: values at its ends.
        y_scale: values at the ends of the y axis.
        diagonal: what the line from corner to corner means; empty: none is drawn.
    """
    along = Axis(*x_scale, LEFT, RIGHT, percent=x_scale == UNIT)
    up = Axis(*y_scale, _FLOOR, TOP, percent=True)
    lines = [Line("chance", diagonal, f"{LEFT},{_FLOOR} {RIGHT},{TOP}")] if diagonal else []
    lines += [Line(curve.kind, curve.label, _points(along.at(curve.x), up.at(curve.y))) for curve in curves]
    words = " ".join(f"{curve.label}: {curve.note}." for curve in curves if curve.note)
    return Chart(
        kind="lines", title=title, words=words or title, floor=_FLOOR, height=_FLOOR + 36, marks=lines,
        x_ticks=along.ticks(), y_ticks=up.ticks(), x_label=x_label, y_label=y_label, legend=_legend(lines),
    )  # fmt: skip


def heat_map(title: str, cells: Sequence[tuple[int, int, float]], frames: Sequence[tuple[int, int, str]]) -> Chart:
    """Lay out AUCs over windows.

    Args:
        title: what the figure shows.
        cells: (first block, n, AUC); 0.5 is the middle of the scale.
        frames: (first block, n, whose window it is).
    """
    starts, lengths = sorted({start for start, _, _ in cells}), sorted({n for _, n, _ in cells})
    width = min(30.0, (RIGHT - LEFT) / (starts[-1] - starts[0] + 1))
    squares, framed = [], []
    for start, n, auc in cells:
        place = round(LEFT + (start - starts[0]) * width, 2), TOP + (n - lengths[0]) * _CELL_HEIGHT, round(width, 2)
        kind, strength = "more" if auc >= 0.5 else "less", round(min(1.0, abs(auc - 0.5) * 2), 3)
        squares.append(Square(f"heat {kind}", *place, strength, f"blocks {start} to {start + n - 1}: {auc:.3f}"))
        owners = [owner for first, length, owner in frames if (first, length) == (start, n)]
        if owners:
            framed.append(Square("frame", *place, 1.0, f"read by {', '.join(owners)}"))
    start, n, auc = max(cells, key=lambda cell: abs(cell[2] - 0.5))
    floor = TOP + len(lengths) * _CELL_HEIGHT
    legend = [("heat more", "AUC near 1"), ("heat less", "AUC near 0")]
    shown = starts[:: 1 if len(starts) <= 12 else 2]
    return Chart(
        kind="heats", title=title, words=f"Separates best: blocks {start} to {start + n - 1}, AUC {auc:.3f}.",
        floor=floor, height=floor + 34, marks=[*squares, *framed],
        x_ticks=[Tick(round(LEFT + (start - starts[0] + 0.5) * width, 2), str(start)) for start in shown],
        y_ticks=[Tick(TOP + (n - lengths[0] + 0.5) * _CELL_HEIGHT, str(n)) for n in lengths],
        x_label="first block of the window", y_label="blocks in the window",
        legend=[*legend, ("frame", "read by a head")] if framed else legend,
    )  # fmt: skip


def cloud_chart(title: str, clouds: Sequence[tuple[str, str, NDArray[np.float64]]], words: str) -> Chart:
    """Lay out clouds of points (kind, label, (M, 2)): two principal components, each stretched to the frame."""
    every = np.concatenate([points for _, _, points in clouds])
    low, high = every.min(axis=0), every.max(axis=0)
    high = np.where(high > low, high, low + 1)
    along, up = Axis(low[0], high[0], 8, RIGHT), Axis(low[1], high[1], _FLOOR, TOP)
    drawn = []
    for kind, label, points in clouds:
        places = zip(along.at(points[:, 0]), up.at(points[:, 1]), strict=True)
        drawn.append(Cloud(kind, label, "".join(f"M{x:g} {y:g}h0" for x, y in places)))
    return Chart(
        kind="clouds", title=title, words=words, floor=_FLOOR + 6, height=_FLOOR + 24, marks=drawn,
        x_label="first component", y_label="second component", left=2, right=RIGHT + 6, top=TOP - 6,
        legend=[(f"dots {cloud.kind}", cloud.label) for cloud in drawn],
    )  # fmt: skip


def common_scale(curves: Sequence[Curve], limits: tuple[float, float]) -> tuple[float, float]:
    """Return a y scale that holds all curves and bands, ending on round numbers."""
    ends = np.concatenate([np.concatenate(curve.band(limits)) for curve in curves])
    low, high = float(ends.min()), float(ends.max())
    step = rounded_step(low, high)
    low, high = (round(end * step, 12) for end in (math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)))
    return (low, high) if high > low else (low, low + step)


def _legend(lines: Iterable[Line]) -> list[tuple[str, str]]:
    return [(f"line {line.kind}", line.label) for line in lines]


def _points(x: Sequence[float], y: Sequence[float]) -> str:
    return " ".join(f"{across:g},{above:g}" for across, above in zip(x, y, strict=True))
