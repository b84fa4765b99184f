"""The figures of report.html, section by section: what is drawn of which results, with captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stages.report.charts import Curve, cloud_chart, curve_chart, heat_map
from stages.report.curves import MOST_HEADS, head_kind, set_charts
from stages.report.figures import Series, bar_chart, common_scale, line_chart
from stages.report.results import place_in
from stages.report.robustness import ROBUST_METRICS, degradations, series
from stages.report.swept import SWEPT_METRICS
from stages.report.tables import METRIC_NAMES, column_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.evaluate.means import Mean
    from stages.report.intervals import Uncertainty
    from stages.report.results import Results
    from stages.report.swept import Place, Sweep

BAR_METRICS = ("ap", "accuracy_real", "accuracy_fake")
Plots = list[dict[str, Any]]

_UNIT = (0.0, 1.0)


def bar_plots(results: Results, uncertainty: Uncertainty, numbers: Iterator[int]) -> Plots:
    """One figure a set; ``numbers`` gives each its number in the page."""
    plots = []
    for tested, name in column_names(results).items():
        n_real, n_fake = results.size(tested)
        heads = [
            (
                e.label,
                [
                    (m, METRIC_NAMES[m], results.of_set(e, tested, m), uncertainty.of_set(e, tested, m))
                    for m in BAR_METRICS
                ],
            )
            for e in results.entries
        ]
        chart = bar_chart(f"Test set {name}: AP and accuracy by head", heads)
        detail = f"{n_real:,} real, {n_fake:,} synthetic images"
        plots.append({"name": name, "detail": detail, "chart": chart, "number": next(numbers)})
    return plots


def curve_plots(results: Results, numbers: Iterator[int]) -> list[dict[str, Any]]:
    """ROC, precision-recall, reliability and histograms of every set that has both classes."""
    return [
        {"name": name, "charts": [{"chart": c, "number": next(numbers)} for c in set_charts(results, tested, name)]}
        for tested, name in column_names(results).items()
        if all(results.size(tested))
    ]


def head_legend(results: Results) -> list[tuple[str, str]]:
    """Return (style class, name) of the heads whose curves are drawn."""
    return [(head_kind(results, entry.head), entry.head) for entry in results.entries[:MOST_HEADS]]


def robustness_plots(results: Results, numbers: Iterator[int]) -> Plots:
    """One figure a degradation and metric: means over sets from the clean view to the strongest one."""
    plots: Plots = []
    for metric in ROBUST_METRICS:
        drawn = []
        for degradation in degradations(results):
            found = {entry.head: series(results, entry.head, degradation, metric) for entry in results.entries}
            # means over different numbers of sets do not belong on one line
            lines = {head: means for head, means in found.items() if len({mean.count for mean in means}) == 1}
            curves = [_curve(results, head, means) for head, means in lines.items() if means[0].value is not None]
            if curves:
                drawn.append((degradation, curves))
        every = [curve for _, curves in drawn for curve in curves]
        scale = common_scale(every, _UNIT) if every else _UNIT
        for degradation, curves in drawn:
            family = degradation.family
            names = ["clean", *(f"{strength:g}" for _, strength in degradation.views)]
            label = METRIC_NAMES[metric]
            title = f"{label[0].upper()}{label[1:]} against {family.title}"
            x = list(range(len(names)))
            chart = line_chart(title, x, curves, limits=_UNIT, scale=scale, x_label=family.title, x_names=names)
            plots.append({"name": title, "detail": "mean over test sets", "chart": chart, "number": next(numbers)})
    return plots


def _curve(results: Results, head: str, means: Sequence[Mean]) -> Series:
    return Series(head_kind(results, head), head, [m.value or 0.0 for m in means], [m.std for m in means])


def window_plots(results: Results, windows: Sequence[AnalysisFile], numbers: Iterator[int]) -> Plots:
    """Heat maps of how much each window tells, all generators together and each; chosen windows are framed."""
    plots: Plots = []
    frames = chosen_windows(results)
    for file in windows:
        groups: dict[str | None, list[dict[str, Any]]] = {}
        order = [tested.name for tested in results.sets]
        rows_in_order = file.table.to_pylist()
        rows_in_order.sort(key=lambda row: -1 if row["generator"] is None else place_in(order, row["generator"]))
        for row in rows_in_order:
            groups.setdefault(row["generator"], []).append(row)
        for generator, rows in groups.items():
            name = generator or "all generators"
            for column, quantity in (("auc_cosine", "cosine distance"), ("auc_l2", "L2 distance")):
                if column == "auc_l2" and generator is not None and len(groups) > 2:
                    continue  # the other quantity of each generator is in tables/windows.csv
                cells = [(row["start"], row["blocks"], row[column]) for row in rows]
                title = f"AUC of the mean {quantity} over a window, {name}"
                detail = f"{quantity}; {rows[0]['n_real']:,} real, {rows[0]['n_fake']:,} synthetic; {file.corpus}"
                chart = heat_map(title, cells, frames)
                plots.append({"name": name, "detail": detail, "chart": chart, "number": next(numbers)})
    return plots


def chosen_windows(results: Results) -> list[tuple[int, int, str]]:
    """Return (first block, n, head and seed) of every head that reads one window."""
    found = {
        (card.facts["window_start"], card.facts["window"], f"{card.head}, seed {card.seed}")
        for card in results.cards
        if card.facts.get("window_start") is not None and card.facts.get("window") is not None
    }
    return sorted(found)


def sweep_plots(sweeps: Mapping[str, Sweep], numbers: Iterator[int]) -> dict[str, Plots]:
    """Return kind -> figures: windows by their first block, a line a length; single blocks, a line a corpus."""
    plots: dict[str, Plots] = {}
    for kind, sweep in sweeps.items():
        plots[kind] = []
        for metric in SWEPT_METRICS:
            label = METRIC_NAMES[metric]
            label = label[0].upper() + label[1:]
            groups: dict[str, list[Curve]] = {}
            for at, column in enumerate(sweep.columns):
                points = {place: mean.value or 0.0 for place, mean in column.means[metric].items()}
                if kind == "layer":
                    name = f"{label} of a linear probe on one block"
                    groups.setdefault(name, []).append(_swept(at, sweep.title(column), points))
                    continue
                for number, n in enumerate(sorted({n for n, _ in points})):
                    of_length = {place: value for place, value in points.items() if place[0] == n}
                    groups.setdefault(f"{label}, {sweep.title(column)}", []).append(
                        _swept(number, f"n = {n}", of_length)
                    )
            values = [value for curves in groups.values() for curve in curves for value in curve.y]
            ends = [place[-1] for place in sweep.places]
            x_scale, y_scale = (min(ends), max(*ends, min(ends) + 1)), (np.floor(min(values) * 10) / 10, 1.0)
            for name, curves in groups.items():
                where = "block" if kind == "layer" else "first block of the window"
                chart = curve_chart(name, curves, x_label=where, x_scale=x_scale, y_scale=y_scale)
                legend = [(curve.kind, curve.label) for curve in curves]
                plots[kind].append({"name": name, "chart": chart, "legend": legend, "number": next(numbers)})
    return plots


def _swept(at: int, label: str, points: Mapping[Place, float]) -> Curve:
    """A curve over the last coordinate of a sweep."""
    x, y = [place[-1] for place in points], list(points.values())
    return Curve(f"head-{at % MOST_HEADS}", label, x, y, f"at most {max(y):.3f}, at {x[y.index(max(y))]}")


def projection_plots(projections: Sequence[AnalysisFile], numbers: Iterator[int]) -> Plots:
    """Two clouds a corpus: raw tokens, and their differences."""
    plots: Plots = []
    for file in projections:
        rows = file.table.to_pylist()
        if not rows:
            continue
        blocks = file.facts["blocks"]
        where = f"blocks {blocks[0]} to {blocks[-1]}, {len(rows):,} images; {file.corpus}"
        for column, title in (("raw", "Raw features"), ("ltd", "Transition features (LTD)")):
            points = np.array([[row[f"{column}_x"], row[f"{column}_y"]] for row in rows])
            label = np.array([-1 if row["label"] is None else row["label"] for row in rows])
            kinds = ((1, "fake", "synthetic images"), (0, "real", "real images"), (-1, "other", "unlabelled images"))
            clouds = [(kind, text, points[label == value]) for value, kind, text in kinds if (label == value).any()]
            share = sum(file.facts["explained"][column])
            words = f"The two components hold {share:.0%} of the variance.".replace("%", " %")
            chart = cloud_chart(f"{title}, first two principal components", clouds, words)
            plots.append({"name": title, "detail": f"{where}. {words}", "chart": chart, "number": next(numbers)})
    return plots
