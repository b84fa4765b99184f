"""Charts: numbers in, marks out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.report.svg import (
    FLOOR,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Chart,
    Mark,
    axes,
    box,
    line_mark,
    rounded_step,
    text_mark,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from stages.measure.frame import Mean

UNIT = (0.0, 1.0)

NAMES_END = 150  # where charts begin that name their rows
_BAR_END, _ROW, _LABEL, _GAP, _LONGEST_LABEL, _CELL = 284, 12, 16, 9, 44, 14


@dataclass(frozen=True)
class Curve:
    """A curve through (x, y) points, x ascending.

    Attributes:
        kind: its style class.
        label: what it is called.
        x: of each point.
        y: of each point.
        std: half the width of its band at each point, None where there is no spread; empty: no band.
        note: what the chart's words say of it; empty: its range.
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


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    x_scale: tuple[float, float] = UNIT,
    y_scale: tuple[float, float] = UNIT,
    limits: tuple[float, float] = UNIT,
    x_names: Sequence[str] = (),
    diagonal: str = "",
    shaded: Sequence[tuple[float, float]] = (),
) -> Chart:
    """Lay out curves, each of at least one point, with their bands.

    Scales are the values at the ends of the axes; ``limits`` those that the quantity can have, where bands are cut.
    ``x_names`` are texts of the ticks at each x of the curves, round numbers without; ``diagonal`` says what the line
    from corner to corner means, none is drawn without; ``shaded`` parts of the x axis stand out.
    """
    percent = limits == UNIT
    along = Axis(x_scale[0], max(x_scale[1], x_scale[0] + 1e-9), LEFT, RIGHT, percent=x_scale == UNIT and not x_names)
    up = Axis(*y_scale, FLOOR, TOP, percent=percent)
    ticks = along.ticks(curves[0].x, x_names) if x_names else along.ticks()
    marks = axes(ticks, up.ticks(), x_label=x_label, y_label=y_label)
    for part in shaded:
        left, right = along.at(part)
        marks.append(Mark("rect", box("band window", left, TOP, round(right - left, 2), FLOOR - TOP)))
    marks.append(line_mark("axis", LEFT, RIGHT, FLOOR, FLOOR))
    for curve in curves:
        if curve.std:
            low, high = curve.band(limits)
            edge = _points(along.at([*curve.x, *reversed(curve.x)]), up.at([*high, *reversed(low)]))
            marks.append(Mark("polygon", {"class": f"band {curve.kind}", "points": edge}))
    if diagonal:
        corners = {"class": "line chance", "points": f"{LEFT},{FLOOR} {RIGHT},{TOP}"}
        marks.append(Mark("polyline", corners, diagonal))
    words = []
    for curve in curves:
        drawn = {"class": f"line {curve.kind}", "points": _points(along.at(curve.x), up.at(curve.y))}
        marks.append(Mark("polyline", drawn, curve.label))
        least, most = (end * (100 if percent else 1) for end in (min(curve.y), max(curve.y)))
        where = int(np.argmax(curve.y))
        place = x_names[where] if x_names else f"{curve.x[where]:g}"
        seen = f"from {least:.3g} to {most:.3g}{' %' if percent else ''}, most at {place}"
        words.append(f"{curve.label}: {curve.note or seen}.")
    legend = [("line chance", diagonal)] if diagonal else []
    legend += [(f"line {curve.kind}", curve.label) for curve in curves]
    return Chart(kind="lines", title=title, words=" ".join(words), height=FLOOR + 36, marks=marks, legend=legend)


def common_scale(curves: Iterable[Curve], limits: tuple[float, float]) -> tuple[float, float]:
    """Return a y scale that holds all curves and bands, ending on round numbers."""
    ends = np.concatenate([np.concatenate(curve.band(limits)) for curve in curves])
    low, high = float(ends.min()), float(ends.max())
    step = rounded_step(low, high)
    low, high = (round(end * step, 12) for end in (math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)))
    return (low, high) if high > low else (low, low + step)


def bar_chart(
    title: str, heads: Iterable[tuple[str, Sequence[tuple[str, str, Mean, tuple[float, float] | None]]]]
) -> Chart:
    """Lay out grouped bars on a scale from 0 to 100 %: (head, its bars: style class, metric, value, interval)."""
    axis = Axis(*UNIT, 1, _BAR_END, percent=True)
    marks, words, legend, y = [], [], {}, 0.0
    for head, bars in heads:
        label = head if len(head) <= _LONGEST_LABEL else f"{head[: _LONGEST_LABEL - 1]}…"
        marks.append(text_mark("label", 1, y + _LABEL - 6, label))
        y += _LABEL
        texts = []
        for kind, name, mean, interval in bars:
            text = "undefined"
            if mean.value is None:
                marks.append(text_mark("undefined", 5, y + 8, f"{name} undefined"))
            else:
                text = f"{100 * mean.value:.2f}" + ("" if mean.std is None else f" ±{100 * mean.std:.2f}")
                width = round(axis.at(mean.value) - 1, 2)
                marks.append(Mark("rect", box(f"bar {kind}", 1, y, width, 8), f"{head}, {name}: {text}"))
                marks.append(text_mark("value", WIDTH - 1, y + 7.5, text, "end"))
            if interval is not None:
                low, high = axis.at(interval)
                ends = f"M{low} {y + 4}H{high}M{low} {y + 1.5}v5M{high} {y + 1.5}v5"
                marks.append(Mark("path", {"class": "whisker", "d": ends}))
            texts.append(f"{name} {text}")
            legend[kind] = name
            y += _ROW
        words.append(f"{head}: {', '.join(texts)}.")
        y += _GAP
    frame = axes(axis.ticks([0, 0.25, 0.5, 0.75, 1]), x_label="percent", floor=y - 4, left=1, right=_BAR_END, top=4)
    return Chart(
        kind="bars", title=title, words=" ".join(words), height=y + 32, marks=[*frame, *marks],
        legend=[*legend.items(), ("whisker", "95 % interval over images")],
    )  # fmt: skip


def difference_chart(title: str, rows: Sequence[tuple[str, float, float, float]]) -> Chart:
    """Lay out differences between shares, (label, difference, low, high), around zero."""
    reach = max(0.001, *(abs(end) for _, *values in rows for end in values))
    axis = Axis(-reach, reach, NAMES_END, RIGHT, percent=True)
    floor = _ROW * len(rows) + 6.0
    marks = axes(axis.ticks(), x_label="difference, percentage points", floor=floor, left=NAMES_END, top=4)
    words = []
    for number, (label, value, low, high) in enumerate(rows):
        y = 12.0 + _ROW * number
        text = f"{label}: {100 * value:+.2f}, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}"
        marks.append(text_mark("value", 0, y + 3, label))
        marks.append(Mark("path", {"class": "whisker", "d": f"M{axis.at(low)} {y}H{axis.at(high)}"}))
        marks.append(Mark("circle", {"class": "dot", "cx": axis.at(value), "cy": y, "r": 2.6}, text))
        words.append(text)
    legend = [("whisker", "difference with its 95 % interval")]
    return Chart(
        kind="differences", title=title, words="; ".join(words), height=floor + 36, marks=marks, legend=legend
    )  # fmt: skip


def heat_map(
    title: str,
    cells: Mapping[tuple[int, int], tuple[float, str]],
    *,
    x_names: Sequence[str],
    y_names: Sequence[str],
    x_label: str,
    y_label: str,
    quantity: str,
    words: str,
    frames: Mapping[tuple[int, int], str],
    framed: str,
    left: float = LEFT,
) -> Chart:
    """Lay out a grid of numbers between 0 and 1; 0.5 is the middle of the scale.

    ``cells``: (column, row) -> number of a ``quantity``, and what it is of. ``frames``: (column, row) of cells that
    stand out -> why, which the legend sums up as ``framed``. Columns begin at ``left``.
    """
    width = round(min(30.0, (RIGHT - left) / len(x_names)), 2)
    squares, outlines = [], []
    for (column, row), (number, text) in cells.items():
        place = round(left + column * width, 2), TOP + row * _CELL, width, _CELL
        strength = {"fill-opacity": round(min(1.0, abs(number - 0.5) * 2), 3)}
        square = box("heat more" if number >= 0.5 else "heat less", *place) | strength
        squares.append(Mark("rect", square, f"{text}: {number:.3f}"))
        if (column, row) in frames:
            outlines.append(Mark("rect", box("frame", *place), frames[column, row]))
    step = 1 if len(x_names) <= 12 else 2
    x_ticks = [(round(left + (at + 0.5) * width, 2), name) for at, name in list(enumerate(x_names))[::step]]
    y_ticks = [(TOP + (at + 0.5) * _CELL, name) for at, name in enumerate(y_names)]
    floor = TOP + len(y_names) * _CELL
    frame = axes(x_ticks, y_ticks, x_label=x_label, y_label=y_label, floor=floor, left=left, grid=False)
    legend = [("heat more", f"{quantity} near 1"), ("heat less", f"{quantity} near 0")]
    return Chart(
        kind="heats", title=title, words=words, height=floor + 34, marks=[*frame, *squares, *outlines],
        legend=[*legend, ("frame", framed)] if outlines else legend,
    )  # fmt: skip


def cloud_chart(title: str, clouds: Sequence[tuple[str, str, NDArray[np.float64]]], words: str) -> Chart:
    """Lay out clouds of points (style class, label, (M, 2)), each of two components stretched to the frame."""
    every = np.concatenate([points for _, _, points in clouds])
    low, high = every.min(axis=0), every.max(axis=0)
    high = np.where(high > low, high, low + 1)
    along, up = Axis(low[0], high[0], 8, RIGHT), Axis(low[1], high[1], FLOOR, TOP)
    marks = axes((), x_label="first component", y_label="second component", floor=FLOOR + 6)
    marks.append(Mark("rect", {**box("frame", 2, TOP - 6, RIGHT + 4, FLOOR - TOP + 12)}))
    for kind, label, points in clouds:
        places = zip(along.at(points[:, 0]), up.at(points[:, 1]), strict=True)
        drawn = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
        marks.append(Mark("path", {"class": f"dots {kind}", "d": drawn}, label))
    legend = [(f"dots {kind}", label) for kind, label, _ in clouds]
    return Chart(kind="clouds", title=title, words=words, height=FLOOR + 24, marks=marks, legend=legend)


def _points(x: Sequence[float], y: Sequence[float]) -> str:
    return " ".join(f"{across:g},{above:g}" for across, above in zip(x, y, strict=True))
