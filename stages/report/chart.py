"""What a figure is once laid out: a chart of marks and ticks, and the axes that place them.

Small figures of one width (``WIDTH`` units, drawn at about one pixel per unit) stay readable on a phone and on paper.
Coordinates are rounded, so that equal data give equal bytes. An axis from 0 to 1 is a share, printed in percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

WIDTH = 360
UNIT = (0.0, 1.0)
LEFT, RIGHT, TOP = 44, 352, 24  # the frame of lines, heat maps and clouds


class Tick(NamedTuple):
    """A mark on an axis: its position and text."""

    at: float
    text: str


class Bar(NamedTuple):
    """A horizontal bar; ``width`` is None for an undefined value, ``whisker`` None where there is no interval."""

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


class Line(NamedTuple):
    """A drawn curve and its band, as lists of SVG points."""

    kind: str
    label: str
    points: str
    band: str = ""


class Square(NamedTuple):
    """A square of a heat map; ``strength`` 0..1 on the side of ``kind`` ("more" or "less"), or a "frame" around one."""

    kind: str
    x: float
    y: float
    width: float
    strength: float
    text: str


class Cloud(NamedTuple):
    """Points of one kind, as one SVG path of dots."""

    kind: str
    label: str
    path: str


class Difference(NamedTuple):
    """A dot with its interval in a row of its own."""

    label: str
    y: float
    at: float
    ends: tuple[float, float]
    text: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure as laid out.

    Attributes:
        kind: "bars", "differences", "lines", "heats" or "clouds": the macro that draws it.
        title: what it shows.
        words: what can be seen in it, for those who do not see it.
        floor: y of the lower end of the frame.
        height: of the drawing.
        marks: what is drawn: ``BarGroup``, ``Difference``, ``Line``, ``Square`` or ``Cloud``.
        legend: (style class, text) of what the marks stand for.
        caption: printed above; empty: the title.
        detail: printed beside the caption.
    """

    kind: str
    title: str
    words: str
    floor: float
    height: float
    marks: Sequence[Any]
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()
    x_label: str = ""
    y_label: str = ""
    legend: Sequence[tuple[str, str]] = ()
    caption: str = ""
    detail: str = ""
    left: float = LEFT
    right: float = RIGHT
    top: float = TOP

    def captioned(self, caption: str, detail: str = "") -> Chart:
        """Return the chart with these words above it."""
        return replace(self, caption=caption, detail=detail)


class Axis(NamedTuple):
    """Places values between ``low`` and ``high`` between two coordinates."""

    low: float
    high: float
    start: float
    end: float
    digits: int = 1
    percent: bool = False

    def at(self, values: ArrayLike) -> Any:
        """Return the coordinates of values, a float or a list; those outside lie on the ends."""
        share = (np.clip(np.asarray(values, dtype=np.float64), self.low, self.high) - self.low) / (self.high - self.low)
        return np.round(self.start + share * (self.end - self.start), self.digits).tolist()

    def ticks(self, values: Sequence[float] = (), texts: Sequence[str] = ()) -> list[Tick]:
        """Place these values, or three to eight round numbers."""
        if not values:
            step = rounded_step(self.low, self.high)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            values = [round(i * step, 12) for i in range(first, last + 1)]
        shown = texts or [f"{value * (100 if self.percent else 1):g}" for value in values]
        return [Tick(at, text) for at, text in zip(self.at(values), shown, strict=True)]


def rounded_step(low: float, high: float) -> float:
    """Return a round step between ticks, of which three to eight lie between two values."""
    span = (high - low) or abs(low) or 1.0
    power = 10.0 ** math.floor(math.log10(span))
    return next(factor * power for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if span / (factor * power) <= 5 + 1e-9)
