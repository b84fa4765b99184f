"""ROC, precision-recall and reliability curves and score histograms of one test set, small enough to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.evaluate.scores import sigmoid
from stages.report.charts import Curve, curve_chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stages.report.figures import LineChart
    from stages.report.results import NamedSet, Results
    from stages.report.sample import Sample

_POINTS = 48
_BINS = 10
_HISTOGRAM_BINS = 32

# Eight line styles can be told apart; curves of more heads than that would also make the page very large.
MOST_HEADS = 8


def head_kind(results: Results, head: str) -> str:
    """Return the style class of a head: its place among the heads, eight different ones."""
    return f"head-{[entry.head for entry in results.entries].index(head) % 8}"


def set_charts(results: Results, tested: NamedSet, name: str) -> list[LineChart]:
    """Return the figures of a set with both classes: ROC, precision-recall, reliability, and a histogram a head."""
    sample = results.samples[tested.corpus]
    rows = sample.members[tested.name]
    fake = sample.label[rows] == 1
    heads = [entry.head for entry in results.entries[:MOST_HEADS] if sample.seeds(entry.head)]
    roc, precision, reliable, histograms = [], [], [], []
    for head in heads:
        kind, seeds = head_kind(results, head), sample.seeds(head)
        first = sample.logits[head, seeds[0]][rows]
        (fpr, tpr), (recall, exact) = _ranked_curves(fake, first)
        roc.append(Curve(kind, head, fpr, tpr, _at(fpr, tpr, 0.1, "finds {:.0%} at 10 % false alarms")))
        precision.append(Curve(kind, head, recall, exact, _at(recall, exact, 0.9, "precision {:.0%} at recall 90 %")))
        pooled = np.concatenate([sample.logits[head, seed][rows] for seed in seeds])
        repeated = np.tile(fake, len(seeds))
        predicted, observed = _reliability(repeated, sigmoid(pooled))
        off = max(abs(p - o) for p, o in zip(predicted, observed, strict=True))
        reliable.append(Curve(kind, head, predicted, observed, f"at most {off:.2f} away from the diagonal"))
        histograms.append(_histogram(f"{name}: logits of {head}", sample, head, pooled, repeated))
    charts = [
        curve_chart(f"{name}: ROC", roc, x_label="false positive rate (reals called synthetic)", diagonal=True),
        curve_chart(f"{name}: precision and recall", precision, x_label="recall (share of synthetic images found)"),
        curve_chart(f"{name}: reliability", reliable, x_label="mean score; y: share that is synthetic", diagonal=True),
    ]
    return [*charts, *histograms]


def _ranked_curves(
    fake: NDArray[np.bool_], logits: NDArray[np.float64]
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    """Return the ROC and the precision-recall curve, at the same few shares of the images."""
    from sklearn.metrics import precision_recall_curve, roc_curve  # noqa: PLC0415 - slow to import

    fpr, tpr, _ = roc_curve(fake, logits)
    # denser where a detector is used: at few false alarms
    kept = np.unique(np.searchsorted(fpr, np.linspace(0, 1, _POINTS) ** 2, side="right") - 1)
    kept = np.union1d(kept, [0, len(fpr) - 1])
    exact, recall, _ = precision_recall_curve(fake, logits, drop_intermediate=True)
    chosen = np.union1d(np.linspace(0, len(recall) - 1, min(_POINTS, len(recall))).round().astype(int), [0])
    return (fpr[kept].tolist(), tpr[kept].tolist()), (recall[chosen].tolist(), exact[chosen].tolist())


def _reliability(fake: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    from sklearn.calibration import calibration_curve  # noqa: PLC0415 - slow to import

    observed, predicted = calibration_curve(fake, scores, n_bins=_BINS, strategy="quantile")
    return predicted.tolist(), observed.tolist()


def _histogram(
    title: str, sample: Sample, head: str, logits: NDArray[np.float64], fake: NDArray[np.bool_]
) -> LineChart:
    """Shares of each class over logits, on the scale that all sets of the corpus share; the ends hold the rest."""
    every = np.concatenate([sample.logits[head, seed] for seed in sample.seeds(head)])
    low, high = np.quantile(every, [0.005, 0.995])
    low, high = (float(low), float(high)) if high > low else (float(low) - 1, float(low) + 1)
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    shares = []
    for rows in (~fake, fake):
        counts, _ = np.histogram(np.clip(logits[rows], low, high), bins=edges)
        shares.append(counts / rows.sum())
    top = float(max(share.max() for share in shares)) * 1.05
    x = np.repeat(edges, 2)
    curves = [
        Curve(kind, label, x.tolist(), [0.0, *np.repeat(share, 2).tolist(), 0.0], f"median logit {middle:.2f}")
        for kind, label, share, middle in (
            ("real", "real images", shares[0], float(np.median(logits[~fake]))),
            ("fake", "synthetic images", shares[1], float(np.median(logits[fake]))),
        )
    ]
    if low < 0 < high:
        curves.append(Curve("threshold", "score 0.5", [0.0, 0.0], [0.0, top]))
    return curve_chart(
        title, curves, x_label="logit (above 0: called synthetic)", x_scale=(low, high), y_scale=(0, top)
    )


def _at(x: Sequence[float], y: Sequence[float], place: float, text: str) -> str:
    nearest = min(range(len(x)), key=lambda i: abs(x[i] - place))
    return text.format(y[nearest]).replace("%", " %").replace("  %", " %")
