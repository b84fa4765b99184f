"""Figures of each test set: bars of every head, and its ROC, precision-recall, reliability and score histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.evaluate.scores import sigmoid
from stages.measure.metrics import METRICS, shown_in
from stages.report.figures import Curve, bar_chart, curve_chart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.report.chart import Chart
    from stages.report.intervals import Uncertainty
    from stages.report.results import NamedSet, Results
    from stages.report.sample import Sample

BAR_METRICS = shown_in("bars")

# Eight line styles can be told apart; curves of more heads than that would also make the page very large.
MOST_HEADS = 8

_POINTS = 48
_BINS = 10
_HISTOGRAM_BINS = 32


def head_kind(results: Results, head: str) -> str:
    """Return the style class of a head: its place among the heads, eight different ones."""
    return f"head-{results.heads.index(head) % MOST_HEADS}"


def bar_figures(results: Results, uncertainty: Uncertainty) -> list[Chart]:
    """One figure a set."""
    figures = []
    for tested, name in results.column_names().items():
        heads = []
        for head in results.heads:
            values = [(results.of_set(head, tested, m), uncertainty.of_set(head, tested, m)) for m in BAR_METRICS]
            heads.append((head, [(m, METRICS[m].title, *pair) for m, pair in zip(BAR_METRICS, values, strict=True)]))
        n_real, n_fake = results.size(tested)
        chart = bar_chart(f"Test set {name}: AP and accuracy by head", heads)
        figures.append(chart.captioned(name, f"{n_real:,} real, {n_fake:,} synthetic images"))
    return figures


def curve_figures(results: Results) -> dict[str, list[Chart]]:
    """Return set -> its curves, a histogram a head last, for every set that has both classes."""
    return {
        name: _charts(results, tested, name)
        for tested, name in results.column_names().items()
        if all(results.size(tested))
    }


def _charts(results: Results, tested: NamedSet, name: str) -> list[Chart]:
    sample = results.samples[tested.corpus]
    rows = sample.members[tested.name]
    fake = sample.label[rows] == 1
    roc, precision, reliable, histograms = [], [], [], []
    for head in results.heads[:MOST_HEADS]:
        kind, seeds = head_kind(results, head), sample.seeds(head)
        if not seeds:
            continue
        (fpr, tpr), (recall, exact) = _ranked_curves(fake, sample.logits[head, seeds[0]][rows])
        finds = max(found for alarms, found in zip(fpr, tpr, strict=True) if alarms <= 0.1)
        roc.append(Curve(kind, head, fpr, tpr, note=f"finds {100 * finds:.0f} % at 10 % false alarms"))
        precise = max(share for found, share in zip(recall, exact, strict=True) if found >= 0.9)
        precision.append(Curve(kind, head, recall, exact, note=f"precision {100 * precise:.0f} % at recall 90 %"))
        pooled = np.concatenate([sample.logits[head, seed][rows] for seed in seeds])
        repeated = np.tile(fake, len(seeds))
        predicted, observed = _reliability(repeated, sigmoid(pooled))
        off = max(abs(p - o) for p, o in zip(predicted, observed, strict=True))
        reliable.append(Curve(kind, head, predicted, observed, note=f"at most {off:.2f} away from the diagonal"))
        histograms.append(_histogram(f"{name}: logits of {head}", sample, head, pooled, repeated))
    false, true = "false positive rate (reals called synthetic), %", "true positive rate, %"
    found, share = "recall (synthetic images found), %", "images that are synthetic, %"
    calibrated = "perfect calibration"
    return [
        curve_chart(f"{name}: ROC", roc, x_label=false, y_label=true, diagonal="chance"),
        curve_chart(f"{name}: precision and recall", precision, x_label=found, y_label="precision, %"),
        curve_chart(f"{name}: reliability", reliable, x_label="mean score, %", y_label=share, diagonal=calibrated),
        *histograms,
    ]


def _ranked_curves(
    fake: NDArray[np.bool_], logits: NDArray[np.float64]
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    """Return the ROC and the precision-recall curve, at the same few shares of the images."""
    from sklearn.metrics import precision_recall_curve, roc_curve  # noqa: PLC0415 - slow to import

    fpr, tpr, _ = roc_curve(fake, logits)
    # denser where a detector is used: at few false alarms
    places = np.linspace(0, 1, _POINTS) ** 2
    # both corners of a step: a line from top to top would enclose more than the curve does
    kept = np.union1d(np.searchsorted(fpr, places, side="left"), np.searchsorted(fpr, places, side="right") - 1)
    exact, recall, _ = precision_recall_curve(fake, logits, drop_intermediate=True)
    chosen = np.union1d(np.linspace(0, len(recall) - 1, min(_POINTS, len(recall))).round().astype(int), [0])
    return (fpr[kept].tolist(), tpr[kept].tolist()), (recall[chosen].tolist(), exact[chosen].tolist())


def _reliability(fake: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    from sklearn.calibration import calibration_curve  # noqa: PLC0415 - slow to import

    observed, predicted = calibration_curve(fake, scores, n_bins=_BINS, strategy="quantile")
    return predicted.tolist(), observed.tolist()


def _histogram(title: str, sample: Sample, head: str, logits: NDArray[np.float64], fake: NDArray[np.bool_]) -> Chart:
    """Shares of each class over logits, on the scale that all sets of the corpus share; the ends hold the rest."""
    every = np.concatenate([sample.logits[head, seed] for seed in sample.seeds(head)])
    low, high = np.quantile(every, [0.005, 0.995])
    low, high = (float(low), float(high)) if high > low else (float(low) - 1, float(low) + 1)
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    x = np.repeat(edges, 2).tolist()
    curves, top = [], 0.0
    for kind, label, rows in (("real", "real images", ~fake), ("fake", "synthetic images", fake)):
        shares = np.histogram(np.clip(logits[rows], low, high), bins=edges)[0] / rows.sum()
        note = f"median logit {float(np.median(logits[rows])):.2f}"
        curves.append(Curve(kind, label, x, [0.0, *np.repeat(shares, 2).tolist(), 0.0], note=note))
        top = max(top, float(shares.max()) * 1.05)
    if low < 0 < high:
        curves.append(Curve("threshold", "score 0.5", [0.0, 0.0], [0.0, top]))
    x_label, y_label = "logit (above 0: called synthetic)", "images of the class, %"
    return curve_chart(title, curves, x_label=x_label, y_label=y_label, x_scale=(low, high), y_scale=(0, top))
