"""A sweep as a plot: accuracy and average precision over one setting, a line for each value of the others."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 420, 260, 60, 40, 50, 70
# Okabe and Ito's colours, which stay apart for colour-blind readers.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_PANELS = (("accuracy", "Accuracy"), ("ap", "Average precision"))


def sweep_svg(rows: Sequence[Mapping[str, Any]], *, x: str, lines: Sequence[str]) -> str:
    """Return an SVG document.

    Args:
        rows: each with ``accuracy``, ``ap`` (0..1), ``x`` (a number) and ``lines``; rows that agree in x and lines
            (seeds, corpora) are averaged.
        x: name of the setting on the horizontal axis.
        lines: names of the settings that tell the lines apart.
    """
    names = list(dict.fromkeys(_line(row, lines) for row in rows))
    ticks = sorted({row[x] for row in rows})
    width = 2 * (_LEFT + _WIDTH) + _GAP + 40
    height = _TOP + _HEIGHT + _BOTTOM + 18 * (len(names) if lines else 0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for number, (metric, title) in enumerate(_PANELS):
        left = _LEFT + number * (_WIDTH + _LEFT + _GAP)
        parts += _panel(rows, metric, title, x=x, ticks=ticks, lines=lines, names=names, left=left)
    for number, name in enumerate(names if lines else ()):
        y = _TOP + _HEIGHT + _BOTTOM + 18 * number
        parts.append(f'<rect x="{_LEFT}" y="{y - 9}" width="12" height="4" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{_LEFT + 18}" y="{y - 3}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    title: str,
    *,
    x: str,
    ticks: Sequence[float],
    lines: Sequence[str],
    names: Sequence[str],
    left: int,
) -> list[str]:
    lowest = np.floor(min(row[metric] for row in rows) * 10) / 10
    span_x, span_y = (ticks[-1] - ticks[0]) or 1, (1 - lowest) or 1

    def at(x_value: float, y_value: float) -> tuple[float, float]:
        return (
            left + _WIDTH * (x_value - ticks[0]) / span_x,
            _TOP + _HEIGHT * (1 - (y_value - lowest) / span_y),
        )

    bottom = _TOP + _HEIGHT
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
    means: dict[str, dict[float, list[float]]] = {name: defaultdict(list) for name in names}
    for row in rows:
        means[_line(row, lines)][row[x]].append(row[metric])
    for number, points in enumerate(means.values()):
        places = [at(value, float(np.mean(points[value]))) for value in sorted(points)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_colour(number)}" stroke-width="1.8"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.6" fill="{_colour(number)}"/>' for a, b in places]
    return parts


def _line(row: Mapping[str, Any], lines: Sequence[str]) -> str:
    return ", ".join(f"{name} = {row[name]}" for name in lines)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
