"""Metrics of stored scores, over all images of a set at once, never averaged per batch.

A metric that is not defined for a set (it has one class only, or too few images) is ``None`` with a reason; it never
enters a mean as 0. Ranks come from logits in float64: sigmoid scores saturate near 0 and 1, where different logits
become one score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.evaluate.scores import sigmoid
from stages.evaluate.thresholds import Ranked, oracle, unlabelled_accuracy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stages.evaluate.scores import Scores

METRICS = (
    "ap",
    "roc_auc",
    "accuracy",
    "accuracy_real",
    "accuracy_fake",
    "balanced_accuracy",
    "tpr_at_fpr_1",
    "tpr_at_fpr_01",
    "oracle_accuracy",
    "calibrated_accuracy",
    "unlabelled_accuracy",
    "ece",
    "brier",
)
# Metrics that are better when they are smaller.
ERRORS = frozenset({"ece", "brier"})
UNLABELLED = 100
ECE_BINS = 15

# One real image in so many may be called synthetic.
ONE_IN = {"tpr_at_fpr_1": 100, "tpr_at_fpr_01": 1000}

_NEED_BOTH = ("ap", "roc_auc", "balanced_accuracy", *ONE_IN)


@dataclass(frozen=True)
class Metrics:
    """How well one head (one seed) tells one set of images apart.

    Attributes:
        n_real: number of real images.
        n_fake: number of synthetic images.
        ap: average precision, synthetic being the positive class.
        roc_auc: area under the ROC curve.
        accuracy: share of images on the right side of score 0.5 (logit 0; a logit of exactly 0 says real).
        accuracy_real: the same among real images.
        accuracy_fake: the same among synthetic images.
        balanced_accuracy: mean of the two.
        tpr_at_fpr_1: share of synthetic images found when at most 1 % of the real ones are called synthetic.
        tpr_at_fpr_01: the same at 0.1 %.
        oracle_accuracy: accuracy at the best threshold of this very set, which nobody has.
        calibrated_accuracy: accuracy at the threshold from held-out images of the training domain.
        unlabelled_accuracy: accuracy at the mean logit of some unlabelled images of the set, without those images.
        ece: expected calibration error of the scores, ``ECE_BINS`` bins of equal width.
        brier: mean squared difference of score and label.
        oracle_threshold: the logit at which ``oracle_accuracy`` is reached.
        undefined: metric name -> why it is None.
    """

    n_real: int
    n_fake: int
    ap: float | None = None
    roc_auc: float | None = None
    accuracy: float | None = None
    accuracy_real: float | None = None
    accuracy_fake: float | None = None
    balanced_accuracy: float | None = None
    tpr_at_fpr_1: float | None = None
    tpr_at_fpr_01: float | None = None
    oracle_accuracy: float | None = None
    calibrated_accuracy: float | None = None
    unlabelled_accuracy: float | None = None
    ece: float | None = None
    brier: float | None = None
    oracle_threshold: float | None = None
    undefined: Mapping[str, str] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        """Return one of ``METRICS`` by name."""
        value: float | None = getattr(self, metric)
        return value


def measure(
    labels: NDArray[np.integer[Any]],
    logits: NDArray[np.floating[Any]],
    *,
    threshold: float | None = None,
    unlabelled: int = UNLABELLED,
) -> Metrics:
    """Measure one set of images.

    Args:
        labels: (N,) 0 real, 1 synthetic.
        logits: (N,) finite, > 0 means synthetic. The order of the rows changes nothing.
        threshold: the logit from :func:`stages.evaluate.thresholds.calibrated_threshold`; None where there is none.
        unlabelled: how many images set the threshold of ``unlabelled_accuracy``.

    Raises:
        ValueError: the shapes differ or a logit is not finite.
    """
    if labels.shape != logits.shape or labels.ndim != 1:
        raise ValueError(f"expected labels and logits of one shape (N,), got {labels.shape} and {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError(f"expected finite logits, got {int((~np.isfinite(logits)).sum())} that are not")
    ranked = Ranked.of(labels, logits)
    undefined = _undefined(ranked, calibrated=threshold is not None, unlabelled=unlabelled)
    values: dict[str, float | None] = {}
    if "ap" not in undefined:
        values |= _of_ranks(ranked)
    if len(ranked.fake):
        values |= _of_scores(ranked)
        values["oracle_accuracy"], values["oracle_threshold"] = oracle(ranked)
        values |= _accuracies(ranked)
    if threshold is not None and len(ranked.fake):
        values["calibrated_accuracy"] = int(ranked.right_over(np.array([threshold]))[0]) / len(ranked.fake)
    if "unlabelled_accuracy" not in undefined:
        values["unlabelled_accuracy"] = unlabelled_accuracy(ranked, unlabelled)
    defined = {
        name: values[name] for name in (*METRICS, "oracle_threshold") if name in values and name not in undefined
    }
    return Metrics(ranked.n_real, ranked.n_fake, **defined, undefined=undefined)


def measure_sets(scores: Scores, *, threshold: float | None = None, unlabelled: int = UNLABELLED) -> dict[str, Metrics]:
    """Measure every named test set of a scores file, in order of name; rows that name no set are in none."""
    return {
        name: measure(scores.label[rows], scores.logit[rows], threshold=threshold, unlabelled=unlabelled)
        for name, rows in scores.members.items()
    }


def _undefined(ranked: Ranked, *, calibrated: bool, unlabelled: int) -> dict[str, str]:
    total = len(ranked.fake)
    lacking = [word for word, n in (("real", ranked.n_real), ("synthetic", ranked.n_fake)) if n == 0]
    if not total:
        return dict.fromkeys(METRICS, "no images")
    undefined = {}
    if lacking:
        undefined = dict.fromkeys((*_NEED_BOTH, "unlabelled_accuracy"), f"no {lacking[0]} images")
        undefined["accuracy_real" if lacking == ["real"] else "accuracy_fake"] = f"no {lacking[0]} images"
    for name, one_in in ONE_IN.items():
        if name not in undefined and ranked.n_real < one_in:
            undefined[name] = f"{ranked.n_real} real images, fewer than the {one_in:,} that this rate needs"
    if "calibrated_accuracy" not in undefined and not calibrated:
        undefined["calibrated_accuracy"] = "no held-out scores of the training domain"
    if "unlabelled_accuracy" not in undefined and total < 2 * unlabelled:
        undefined["unlabelled_accuracy"] = f"{total} images, fewer than twice the {unlabelled} that set the threshold"
    return undefined


def _of_ranks(ranked: Ranked) -> dict[str, float | None]:
    from sklearn.metrics import auc, average_precision_score, roc_curve  # noqa: PLC0415 - slow to import

    fpr, tpr, _ = roc_curve(ranked.fake, ranked.logits, drop_intermediate=False)
    values = {name: float(tpr[fpr <= 1 / one_in].max()) for name, one_in in ONE_IN.items()}
    ap = float(average_precision_score(ranked.fake, ranked.logits))
    return {**values, "ap": ap, "roc_auc": float(auc(fpr, tpr))}


def _of_scores(ranked: Ranked) -> dict[str, float | None]:
    from sklearn.metrics import brier_score_loss  # noqa: PLC0415 - slow to import

    scores = sigmoid(ranked.logits)
    bins = np.minimum((scores * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=scores - ranked.fake, minlength=ECE_BINS)
    brier = float(brier_score_loss(ranked.fake, scores, pos_label=True))
    return {"ece": float(np.abs(gaps).sum() / len(scores)), "brier": brier}


def _accuracies(ranked: Ranked) -> dict[str, float | None]:
    cut = np.searchsorted(ranked.logits, [0.0], side="right")
    real, fake = (int(right[0]) for right in ranked.right_at(cut))
    on_real = real / ranked.n_real if ranked.n_real else None
    on_fake = fake / ranked.n_fake if ranked.n_fake else None
    balanced = None if on_real is None or on_fake is None else (on_real + on_fake) / 2
    return {
        "accuracy": (real + fake) / len(ranked.fake),
        "accuracy_real": on_real,
        "accuracy_fake": on_fake,
        "balanced_accuracy": balanced,
    }
