"""SVG marks, axes, and a chart of them; ``template/plots.html.j2`` writes them.

All charts have one width, ``WIDTH`` units of about a pixel: small ones stay readable on a phone and on paper.
Coordinates are rounded, so that equal data give equal bytes. A scale from 0 to 1 is a share, printed in percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

WIDTH = 360
LEFT, RIGHT, TOP, FLOOR = 44, 352, 24, 204  # the frame of lines, heat maps and clouds


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


class Axis(NamedTuple):
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

    def ticks(self, values: Sequence[float] = (), texts: Sequence[str] = ()) -> list[tuple[float, str]]:
        """Return coordinate and text of these values, or of three to eight round numbers."""
        if not values:
            step = rounded_step(self.low, self.high)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            values = [round(i * step, 12) for i in range(first, last + 1)]
        shown = texts or [f"{value * (100 if self.percent else 1):g}" for value in values]
        return list(zip(self.at(values), shown, strict=True))


def axes(
    x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]] = (), *, x_label: str, y_label: str = "",
    floor: float = FLOOR, left: float = LEFT, right: float = RIGHT, top: float | None = None, grid: bool = True,
) -> list[Mark]:  # fmt: skip
    """Return ticks, labels and a grid of rows, or of columns from ``top`` where that is given."""
    marks = []
    for at, text in y_ticks:
        marks += [line_mark("grid", left, right, at, at)] if grid else []
        marks.append(text_mark("tick", left - 6, at + 3.5, text, "end"))
    for at, text in x_ticks:
        marks.append(
            line_mark("axis", at, at, floor, floor + 4) if top is None else line_mark("grid", at, at, top, floor)
        )
        marks.append(text_mark("tick", at, floor + 16, text, "start" if at < 8 else "middle"))
    bottom = floor + (32 if x_ticks else 14)
    return [*marks, text_mark("tick", (left + right) / 2, bottom, x_label, "middle"), text_mark("tick", 0, 11, y_label)]


def text_mark(kind: str, x: float, y: float, text: str, anchor: str = "start") -> Mark:
    """Return a line of text."""
    return Mark("text", {"class": kind, "x": x, "y": y, "text-anchor": anchor}, text)


def line_mark(kind: str, x1: float, x2: float, y1: float, y2: float) -> Mark:
    """Return a straight line."""
    return Mark("line", {"class": kind, "x1": x1, "x2": x2, "y1": y1, "y2": y2})


def box(kind: str, x: float, y: float, width: float, height: float) -> dict[str, object]:
    """Return the attributes of a rectangle."""
    return {"class": kind, "x": x, "y": y, "width": width, "height": height}


def rounded_step(low: float, high: float) -> float:
    """Return a round step between ticks, of which three to eight lie between two values."""
    span = (high - low) or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    return next(factor * power for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (factor * power) <= 5 + 1e-9)
