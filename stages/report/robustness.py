"""What degraded images cost: metrics over views such as ``jpeg-70`` or ``blur-2``, beside those of the clean view."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from stages.evaluate.scores import MATCHED
from stages.measure.metrics import METRICS
from stages.report.chart import UNIT
from stages.report.figures import Curve, band_chart, common_scale
from stages.report.set_figures import MOST_HEADS, head_kind
from stages.report.table import Block, Table, Value
from stages.report.tables import HEADLINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.report.chart import Chart
    from stages.report.results import Results
    from stages.report.table import Cell

_VIEW = re.compile(r"^([a-z]+)-(\d+(?:\.\d+)?)$")


class Degradation(NamedTuple):
    """A kind of degradation.

    Attributes:
        title: what it is called.
        falling: whether a smaller number degrades more.
        paper: the range of strengths that the paper plots; empty where it plots none.
    """

    title: str
    falling: bool
    paper: tuple[float, float] = (1, 0)


# What view names begin with -> the degradation.
_DEGRADATIONS = {
    "jpeg": Degradation("JPEG quality", falling=True, paper=(60, 100)),
    "webp": Degradation("WebP quality", falling=True),
    "blur": Degradation("Gaussian blur, sigma in pixels", falling=False),
    "scale": Degradation("Downscaling, factor", falling=True, paper=(0.5, 1.0)),
    "noise": Degradation("Gaussian noise, sigma", falling=False),
}


def robustness_table(results: Results, *, paper: bool = False) -> Table | None:
    """Means over the sets of each corpus for every head and view, and what is lost against the clean view.

    Args:
        results: what was measured.
        paper: only the views on the grid that the paper plots (JPEG 60..100, scale 0.5..1.0).

    Returns:
        None where the study has no degraded view.
    """
    blocks = []
    for metric in HEADLINE:
        rows: list[Sequence[Cell]] = []
        for head, corpus in product(results.heads, results.corpora):
            for kind, view, strength in _views(results, paper=paper):
                if results.scored(head, corpus, view):
                    mean = results.of_corpus(head, metric, corpus, view)
                    cells = (Value.of(mean), _loss(results, head, corpus, view, metric), mean.count, mean.total)
                    rows.append([head, corpus, kind, view or "clean", strength, *cells])
        blocks.append(Block(METRICS[metric].title, rows))
    if not any(row[3] != "clean" for row in blocks[0].rows):
        return None
    header = ["head", "corpus", "degradation", "view", "strength", "mean", "relative to clean", "sets_in_mean", "sets"]
    notes = ["Percent, mean over test sets, ± over seeds; relative to clean in percentage points, over the same sets."]
    title = f"Robustness{' on the grid of the paper' if paper else ''}"
    return Table(title, header, blocks, text_columns=4, block_name="metric", notes=notes)


def robustness_figures(results: Results) -> list[Chart]:
    """One figure per corpus, metric and degradation: means over sets from the clean view to the strongest one."""
    figures = []
    for metric, corpus in product(HEADLINE, results.corpora):
        drawn = []
        for degradation, views in _degraded(results).items():
            places = {"": "clean"} | {view: f"{strength:g}" for view, strength in views}
            curves = []
            for head in results.heads[:MOST_HEADS]:
                means = [results.of_corpus(head, metric, corpus, view) for view in places]
                # means over different numbers of sets do not belong on one line
                if len({mean.count for mean in means}) == 1 and means[0].count:
                    values, spreads = [mean.value or 0.0 for mean in means], [mean.std for mean in means]
                    curves.append(Curve(head_kind(results, head), head, range(len(places)), values, spreads))
            if curves:
                drawn.append((_DEGRADATIONS[degradation].title, list(places.values()), curves))
        every = [curve for _, _, curves in drawn for curve in curves]
        scale = common_scale(every, UNIT) if every else UNIT
        of = f"{corpus}: " if len(results.corpora) > 1 else ""
        for name, names, curves in drawn:
            title = f"{of}{METRICS[metric].heading} against {name}"
            y_label = f"{METRICS[metric].heading}, %"
            chart = band_chart(title, curves, limits=UNIT, scale=scale, x_label=name, y_label=y_label, x_names=names)
            figures.append(chart.captioned(title, "mean over test sets"))
    return figures


def _degraded(results: Results) -> dict[str, list[tuple[str, float]]]:
    """Return the degradations that the study has views of -> (view, strength), from the weakest to the strongest."""
    parsed = [(match[1], view, float(match[2])) for view in results.views if (match := _VIEW.match(view))]
    found = {}
    for kind, degradation in _DEGRADATIONS.items():
        views = [(view, strength) for of, view, strength in parsed if of == kind]
        if views:
            found[kind] = sorted(views, key=lambda item: item[1], reverse=degradation.falling)
    return found


def _views(results: Results, *, paper: bool) -> list[tuple[str, str, float | None]]:
    """Return (degradation, view, strength), the clean view first under an empty name, several at once last."""
    single = [(kind, view, at) for kind, views in _degraded(results).items() for view, at in views]
    rows: list[tuple[str, str, float | None]] = [("none", "", None)]
    if paper:
        grid = {kind: degradation.paper for kind, degradation in _DEGRADATIONS.items()}
        return rows + [row for row in single if grid[row[0]][0] <= row[2] <= grid[row[0]][1]]
    several = [view for view in results.views if view not in {name for _, name, _ in single}]
    return [*rows, *single,
            *(("files alike" if view.startswith(MATCHED) else "several", view, None) for view in several)]  # fmt: skip


def _loss(results: Results, head: str, corpus: str, view: str, metric: str) -> Value:
    """The difference to the clean view, both as means over the sets that are defined in both for all seeds."""
    clean = [tested for tested in results.covered(head, metric) if tested.corpus == corpus]
    common = sorted(tested for tested in results.covered(head, metric, view) if tested in clean)
    here, there = (results.of_sets(head, metric, common, one).value for one in (view, ""))
    return Value(None) if here is None or there is None else Value(here - there, signed=True)
