"""Figures of each test set: ROC, precision-recall, reliability and score histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stages.evaluate.scores import sigmoid
from stages.report.chart import Curve, line_chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stages.report.chart import Chart
    from stages.report.results import NamedSet, Results

# Eight line styles can be told apart; curves of more heads than that would also make the page very large.
MOST_HEADS = 8

_POINTS = 48
_BINS = 10
_HISTOGRAM_BINS = 32


def head_kind(results: Results, head: str) -> str:
    """Return the style class of a head: its place among the heads, eight different ones."""
    return f"head-{results.heads.index(head) % MOST_HEADS}"


def curve_figures(results: Results) -> dict[str, list[Chart]]:
    """Return set -> its curves, a histogram a head last, for every set that has both classes."""
    names = results.column_names().items()
    return {name: _charts(results, tested, name) for tested, name in names if all(results.size(tested))}


def _charts(results: Results, tested: NamedSet, name: str) -> list[Chart]:
    images, logits = results.images[tested.corpus], results.logits[tested.corpus]
    rows = images.members[tested.name]
    fake = images.label[rows] == 1
    roc, precision, reliable, histograms = [], [], [], []
    for head in results.heads[:MOST_HEADS]:
        kind, of_seeds = head_kind(results, head), [logits[run] for run in sorted(logits) if run[0] == head]
        if not of_seeds or np.isnan(of_seeds[0][rows]).any():
            continue
        (fpr, tpr), (recall, exact) = _ranked_curves(fake, of_seeds[0][rows])
        finds = 100 * tpr[fpr <= 0.1].max()
        roc.append(Curve(kind, head, fpr.tolist(), tpr.tolist(), note=f"finds {finds:.0f} % at 10 % false alarms"))
        note = f"precision {100 * exact[recall >= 0.9].max():.0f} % at recall 90 %"
        precision.append(Curve(kind, head, recall.tolist(), exact.tolist(), note=note))
        pooled, repeated = np.concatenate([one[rows] for one in of_seeds]), np.tile(fake, len(of_seeds))
        predicted, observed = _reliability(repeated, sigmoid(pooled))
        note = f"at most {np.abs(predicted - observed).max():.2f} away from the diagonal"
        reliable.append(Curve(kind, head, predicted.tolist(), observed.tolist(), note=note))
        histograms.append(_histogram(f"{name}: logits of {head}", of_seeds, pooled, repeated))
    false, true = "false positive rate (reals called synthetic), %", "true positive rate, %"
    recalled, share = "recall (synthetic images found), %", "images that are synthetic, %"
    return [
        line_chart(f"{name}: ROC", roc, x_label=false, y_label=true, diagonal="chance"),
        line_chart(f"{name}: precision and recall", precision, x_label=recalled, y_label="precision, %"),
        line_chart(f"{name}: reliability", reliable, x_label="mean score, %", y_label=share, diagonal="calibrated"),
        *histograms,
    ]


def _ranked_curves(fake: NDArray[np.bool_], logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the ROC and the precision-recall curve, (2, P) each, at the same few shares of the images."""
    from sklearn.metrics import precision_recall_curve, roc_curve  # noqa: PLC0415 - slow to import

    roc = np.stack(roc_curve(fake, logits)[:2])
    # denser where a detector is used: at few false alarms
    places = np.linspace(0, 1, _POINTS) ** 2
    # both corners of a step: a line from top to top would enclose more than the curve does
    kept = np.union1d(np.searchsorted(roc[0], places, side="left"), np.searchsorted(roc[0], places, side="right") - 1)
    exact, recall, _ = precision_recall_curve(fake, logits, drop_intermediate=True)
    chosen = np.union1d(np.linspace(0, len(recall) - 1, min(_POINTS, len(recall))).round().astype(int), [0])
    return roc[:, kept], np.stack([recall, exact])[:, chosen]


def _reliability(fake: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    from sklearn.calibration import calibration_curve  # noqa: PLC0415 - slow to import

    observed, predicted = calibration_curve(fake, scores, n_bins=_BINS, strategy="quantile")
    return predicted, observed


def _histogram(
    title: str, of_seeds: Sequence[NDArray[np.float64]], logits: NDArray[np.float64], fake: NDArray[np.bool_]
) -> Chart:
    """Shares of each class over logits, on the scale that all sets of the corpus share; the ends hold the rest."""
    low, high = map(float, np.nanquantile(np.concatenate(of_seeds), [0.005, 0.995]))
    low, high = (low, high) if high > low else (low - 1, low + 1)
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    curves, top = [], 0.0
    for kind, label, rows in (("real", "real images", ~fake), ("fake", "synthetic images", fake)):
        shares = np.histogram(np.clip(logits[rows], low, high), bins=edges)[0] / rows.sum()
        note = f"median logit {float(np.median(logits[rows])):.2f}"
        steps = [0.0, *np.repeat(shares, 2).tolist(), 0.0]
        curves.append(Curve(kind, label, np.repeat(edges, 2).tolist(), steps, note=note))
        top = max(top, float(shares.max()) * 1.05)
    if low < 0 < high:
        curves.append(Curve("threshold", "score 0.5", [0.0, 0.0], [0.0, top], note="at logit 0"))
    x_label, y_label = "logit (above 0: called synthetic)", "images of the class, %"
    return line_chart(title, curves, x_label=x_label, y_label=y_label, x_scale=(low, high), y_scale=(0, top))
