"""Charts: numbers in, SVG marks out; ``template/plots.html.j2`` writes them.

All charts have one width, ``WIDTH`` units of about a pixel: small ones stay readable on a phone and on paper.
Coordinates are rounded, so that equal data give equal bytes. A scale from 0 to 1 is a share, printed in percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

WIDTH = 360
LEFT, RIGHT, TOP, FLOOR = 44, 352, 24, 204  # the frame of what is drawn
NAMES_END = 150  # where heat maps begin that name their rows
UNIT = (0.0, 1.0)
_CELL = 14  # height of a cell of a heat map


class Mark(NamedTuple):
    """An SVG element, its attributes, and its text: that of a ``text``, else the title that a pointer shows."""

    tag: str
    attributes: Mapping[str, object]
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart as laid out, the marks of its axes first.

    Attributes:
        kind: style class of the drawing.
        title: what it shows.
        words: what can be seen in it, for those who do not see it.
        legend: (style class, text) of what the marks stand for.
        caption: printed above, with the detail beside it; empty: the title.
    """

    kind: str
    title: str
    words: str
    height: float
    marks: Sequence[Mark]
    legend: Sequence[tuple[str, str]]
    caption: str = ""
    detail: str = ""

    def captioned(self, caption: str, detail: str = "") -> Chart:
        """Return the chart with these words above it."""
        return replace(self, caption=caption, detail=detail)


@dataclass(frozen=True)
class Curve:
    """A curve through (x, y) points, x ascending, or a cloud of them.

    Attributes:
        kind: its style class.
        label: what it is called.
        x: of each point.
        y: of each point.
        std: half the width of its band at each point, None where there is no spread; empty: no band.
        note: what the chart's words say of it; empty: its range.
        dots: whether the points are drawn in place of a line.
    """

    kind: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    std: Sequence[float | None] = ()
    note: str = ""
    dots: bool = False

    @property
    def style(self) -> str:
        """Style classes of its mark, and of its entry in the legend."""
        return f"{'dots' if self.dots else 'line'} {self.kind}"

    def band(self, limits: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lower and the upper edge of the band, within what the quantity can be."""
        spread = np.array([std or 0.0 for std in self.std] or 0.0)
        return np.clip(self.y - spread, *limits), np.clip(self.y + spread, *limits)


class _Axis(NamedTuple):
    """Places values between ``low`` and ``high`` between two coordinates."""

    low: float
    high: float
    start: float
    end: float
    percent: bool = False

    def at(self, values: ArrayLike) -> Any:
        """Return the coordinates of values, a float or a list; those outside lie on the ends."""
        share = (np.clip(np.asarray(values, dtype=np.float64), self.low, self.high) - self.low) / (self.high - self.low)
        return np.round(self.start + share * (self.end - self.start), 2).tolist()

    def ticks(self) -> list[tuple[float, str]]:
        """Return coordinate and text of three to eight round numbers."""
        step = _rounded_step(self.low, self.high)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [round(i * step, 12) for i in range(first, last + 1)]
        return [(self.at(value), f"{value * (100 if self.percent else 1):g}") for value in values]


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
    along = _Axis(x_scale[0], max(x_scale[1], x_scale[0] + 1e-9), LEFT, RIGHT, percent=x_scale == UNIT and not x_names)
    up = _Axis(*y_scale, FLOOR, TOP, percent=percent)
    ticks = list(zip(along.at(curves[0].x), x_names, strict=True)) if x_names else along.ticks()
    marks = _axes(ticks, up.ticks(), x_label=x_label, y_label=y_label)
    for part in shaded:
        left, right = along.at(part)
        marks.append(_box("band window", (left, TOP, round(right - left, 2), FLOOR - TOP)))
    marks.append(_line("axis", LEFT, RIGHT, FLOOR, FLOOR))
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
        x, y = along.at(curve.x), up.at(curve.y)
        if curve.dots:
            drawn = "".join(f"M{across:g} {above:g}h0" for across, above in zip(x, y, strict=True))
            marks.append(Mark("path", {"class": curve.style, "d": drawn}, curve.label))
        else:
            marks.append(Mark("polyline", {"class": curve.style, "points": _points(x, y)}, curve.label))
        least, most = (end * (100 if percent else 1) for end in (min(curve.y), max(curve.y)))
        where = int(np.argmax(curve.y))
        place = x_names[where] if x_names else f"{curve.x[where]:g}"
        seen = f"from {least:.3g} to {most:.3g}{' %' if percent else ''}, most at {place}"
        words.append(f"{curve.label}: {curve.note or seen}.")
    legend = [("line chance", diagonal)] if diagonal else []
    legend += [(curve.style, curve.label) for curve in curves]
    return Chart(kind="lines", title=title, words=" ".join(words), height=FLOOR + 36, marks=marks, legend=legend)


def common_scale(curves: Iterable[Curve], limits: tuple[float, float]) -> tuple[float, float]:
    """Return a y scale that holds all curves and bands, ending on round numbers."""
    ends = np.concatenate([np.concatenate(curve.band(limits)) for curve in curves])
    low, high = float(ends.min()), float(ends.max())
    step = _rounded_step(low, high)
    low, high = (round(end * step, 12) for end in (math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)))
    return (low, high) if high > low else (low, low + step)


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
        square = _box("heat more" if number >= 0.5 else "heat less", place, f"{text}: {number:.3f}")
        strength = {"fill-opacity": round(min(1.0, abs(number - 0.5) * 2), 3)}
        squares.append(square._replace(attributes={**square.attributes, **strength}))
        if (column, row) in frames:
            outlines.append(_box("frame", place, frames[column, row]))
    step = 1 if len(x_names) <= 12 else 2
    x_ticks = [(round(left + (at + 0.5) * width, 2), name) for at, name in list(enumerate(x_names))[::step]]
    y_ticks = [(TOP + (at + 0.5) * _CELL, name) for at, name in enumerate(y_names)]
    floor = TOP + len(y_names) * _CELL
    frame = _axes(x_ticks, y_ticks, x_label=x_label, y_label=y_label, floor=floor, left=left, grid=False)
    legend = [("heat more", f"{quantity} near 1"), ("heat less", f"{quantity} near 0")]
    return Chart(
        kind="heats", title=title, words=words, height=floor + 34, marks=[*frame, *squares, *outlines],
        legend=[*legend, ("frame", framed)] if outlines else legend,
    )  # fmt: skip


def _axes(
    x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]], *, x_label: str, y_label: str,
    floor: float = FLOOR, left: float = LEFT, grid: bool = True,
) -> list[Mark]:  # fmt: skip
    """Return ticks, labels and a grid of rows."""
    marks = []
    for at, text in y_ticks:
        marks += [_line("grid", left, RIGHT, at, at)] if grid else []
        marks.append(_text(left - 6, at + 3.5, text, "end"))
    for at, text in x_ticks:
        marks += [_line("axis", at, at, floor, floor + 4), _text(at, floor + 16, text, "middle")]
    return [*marks, _text((left + RIGHT) / 2, floor + 32, x_label, "middle"), _text(0, 11, y_label, "start")]


def _text(x: float, y: float, text: str, anchor: str) -> Mark:
    return Mark("text", {"class": "tick", "x": x, "y": y, "text-anchor": anchor}, text)


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> Mark:
    return Mark("line", {"class": kind, "x1": x1, "x2": x2, "y1": y1, "y2": y2})


def _box(kind: str, place: tuple[float, float, float, float], text: str = "") -> Mark:
    x, y, width, height = place
    return Mark("rect", {"class": kind, "x": x, "y": y, "width": width, "height": height}, text)


def _points(x: Sequence[float], y: Sequence[float]) -> str:
    return " ".join(f"{across:g},{above:g}" for across, above in zip(x, y, strict=True))


def _rounded_step(low: float, high: float) -> float:
    """Return a round step between ticks, of which three to eight lie between two values."""
    span = (high - low) or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    return next(factor * power for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (factor * power) <= 5 + 1e-9)
