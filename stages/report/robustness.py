"""What degraded images cost: metrics over views such as ``jpeg-70`` or ``blur-2``, beside those of the clean view."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

from stages.evaluate.scores import MATCHED
from stages.measure.metrics import METRICS
from stages.report.chart import UNIT, Curve, common_scale, line_chart
from stages.report.set_figures import MOST_HEADS, head_kind
from stages.report.table import Block, Table, Value
from stages.report.tables import HEADLINE
from storage.views import ALIGN

if TYPE_CHECKING:
    from stages.report.chart import Chart
    from stages.report.results import Results
    from stages.report.table import Rows

_OTHERS = {MATCHED.removesuffix("-"): "metadata-matched", ALIGN: "format-aligned"}
_VIEW = re.compile(r"^([a-z]+)-(\d+(?:\.\d+)?)$")


# What view names begin with -> what it does, and whether a smaller number degrades more.
_DEGRADATIONS = {
    "jpeg": ("JPEG quality", True),
    "webp": ("WebP quality", True),
    "blur": ("Gaussian blur, sigma in pixels", False),
    "scale": ("Downscaling, factor", True),
    "noise": ("Gaussian noise, sigma", False),
    "fit": ("Longer side, pixels", True),
    "letterbox": ("Letterbox, share of the height a bar", False),
    "corner": ("Corner crop, share of each side", True),
}


def robustness_table(results: Results) -> Table | None:
    """Means over the sets of each corpus for every head and view, and what is lost against the clean view, if any."""
    views: list[tuple[str, str, float | None]] = [("none", "", None)]
    for kind, of_kind in _degraded(results).items():
        views += [(kind, view, strength) for view, strength in of_kind]
    several = [view for view in results.views if view not in {name for _, name, _ in views}]
    views += [(_OTHERS.get(view.partition("-")[0], "several"), view, None) for view in several]
    blocks = []
    for metric in HEADLINE:
        rows: Rows = []
        for head, corpus, (kind, view, strength) in product(results.heads, results.corpora, views):
            if results.scored(head, corpus, view):
                mean, sets = results.of_corpus(head, metric, corpus, view), results.sets_of(corpus)
                # the difference is over the sets that are defined in both views
                common = results.covered(head, metric, results.covered(head, metric, sets, view))
                here, there = (results.of_sets(head, metric, sorted(common), one).value for one in (view, ""))
                lost = Value(None if here is None or there is None else here - there, signed=True)
                cells = [view or "clean", strength, Value.of(mean), lost, mean.count, mean.total]
                rows.append([head, corpus, kind, *cells])
        blocks.append(Block(METRICS[metric].title, rows))
    header = ["head", "corpus", "degradation", "view", "strength", "mean", "relative to clean", "sets_in_mean", "sets"]
    notes = ["Percent, mean over test sets, ± over seeds; relative to clean in percentage points, over the same sets."]
    table = Table("Robustness", header, blocks, text_columns=4, block_name="metric", notes=notes)
    return table if any(row[3] != "clean" for row in blocks[0].rows) else None


def robustness_figures(results: Results) -> list[Chart]:
    """One figure per corpus, metric and degradation: means over sets from the clean view to the strongest one."""
    figures = []
    for metric, corpus in product(HEADLINE, results.corpora):
        drawn: list[tuple[str, list[str], list[Curve]]] = []
        for kind, of_kind in _degraded(results).items():
            scored = [(view, at) for view, at in of_kind if any(results.scored(h, corpus, view) for h in results.heads)]
            places = {"": "clean"} | {view: f"{strength:g}" for view, strength in scored}
            curves = []
            for head in results.heads[:MOST_HEADS]:
                means = [results.of_corpus(head, metric, corpus, view) for view in places]
                # means over different numbers of sets do not belong on one line
                if scored and len({mean.count for mean in means}) == 1 and means[0].count:
                    values, spreads = [mean.value or 0.0 for mean in means], [mean.std for mean in means]
                    curves.append(Curve(head_kind(results, head), head, range(len(places)), values, spreads))
            if curves:
                drawn.append((_DEGRADATIONS[kind][0], list(places.values()), curves))
        if drawn:
            scale = common_scale([curve for _, _, curves in drawn for curve in curves], UNIT)
        for name, names, curves in drawn:
            of = f"{corpus}: " if len(results.corpora) > 1 else ""
            title = f"{of}{METRICS[metric].heading} against {name}"
            x_scale, y_label = (0, len(names) - 1), f"{METRICS[metric].heading}, %"
            chart = line_chart(
                title, curves, x_label=name, y_label=y_label, x_scale=x_scale, y_scale=scale, x_names=names
            )  # fmt: skip
            figures.append(chart.captioned(title, "mean over test sets"))
    return figures


def _degraded(results: Results) -> dict[str, list[tuple[str, float]]]:
    """Return the degradations that the study has views of -> (view, strength), from the weakest to the strongest."""
    parsed = [(match[1], view, float(match[2])) for view in results.views if (match := _VIEW.match(view))]
    found = {}
    for kind, (_, falling) in _DEGRADATIONS.items():
        views = [(view, strength) for of, view, strength in parsed if of == kind]
        if views:
            found[kind] = sorted(views, key=lambda item: item[1], reverse=falling)
    return found
