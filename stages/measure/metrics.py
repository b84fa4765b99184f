"""Metrics of stored scores, over all images of a set at once, never averaged per batch.

A metric that is not defined for a set (it has one class only, or too few images) is ``None`` with a reason; it never
enters a mean as 0. Ranks and thresholds are of logits in float64: sigmoid scores saturate near 0 and 1, where different
logits become one score. An image is called synthetic where its logit is greater than the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.evaluate.scores import sigmoid

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
UNLABELLED_DRAWS = 20
ECE_BINS = 15

# One real image in so many may be called synthetic.
ONE_IN = {"tpr_at_fpr_1": 100, "tpr_at_fpr_01": 1000}
# So many real images have to be beyond the threshold: with fewer, the interval of the rate is too narrow.
REALS_BEYOND = 5


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
        oracle_accuracy: accuracy at the best threshold of the test set itself: an upper bound.
        calibrated_accuracy: accuracy at the threshold from held-out images of the training domain.
        unlabelled_accuracy: accuracy at the threshold from some unlabelled images of the set, on the other images.
        ece: expected calibration error of the scores, ``ECE_BINS`` bins of equal width.
        brier: mean squared difference of score and label.
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
        logits: (N,) finite. The order of the rows changes nothing.
        threshold: the logit from :func:`calibrated_threshold`; None where there is none.
        unlabelled: how many images set the threshold of ``unlabelled_accuracy``.

    Raises:
        ValueError: the shapes differ or a logit is not finite.
    """
    if labels.shape != logits.shape or labels.ndim != 1:
        raise ValueError(f"expected labels and logits of one shape (N,), got {labels.shape} and {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError(f"expected finite logits, got {int((~np.isfinite(logits)).sum())} that are not")
    ranked = _Ranked.of(labels, logits)
    n_real, n_fake, total = ranked.n_real, ranked.n_fake, len(ranked.fake)
    values: dict[str, float] = {}
    real, fake = (int(right[0]) for right in ranked.right_at(ranked.cuts_of(np.zeros(1))))
    if n_real:
        values["accuracy_real"] = real / n_real
    if n_fake:
        values["accuracy_fake"] = fake / n_fake
    if n_real and n_fake:
        values |= {"accuracy": (real + fake) / total, **_of_scores(ranked), **_of_ranks(ranked)}
        values["balanced_accuracy"] = (values["accuracy_real"] + values["accuracy_fake"]) / 2
        values["oracle_accuracy"] = float(np.add(*ranked.right_at(ranked.cuts)).max() / total)
        if threshold is not None:
            values["calibrated_accuracy"] = int(ranked.right_over(np.array([threshold]))[0]) / total
        if total >= 2 * unlabelled:
            values["unlabelled_accuracy"] = _unlabelled_accuracy(ranked, unlabelled)
    undefined = {name: _why(name, n_real, n_fake, unlabelled) for name in METRICS if name not in values}
    return Metrics(n_real, n_fake, **values, undefined=undefined)


def measure_sets(scores: Scores, *, threshold: float | None = None, unlabelled: int = UNLABELLED) -> dict[str, Metrics]:
    """Measure every named test set of a scores file, in order of name; rows that name no set are in none."""
    return {
        name: measure(scores.label[rows], scores.logit[rows], threshold=threshold, unlabelled=unlabelled)
        for name, rows in scores.members.items()
    }


def calibrated_threshold(labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> float | None:
    """Return the threshold with the greatest balanced accuracy on held-out images; None where a class is missing.

    A score does not change its order when its generator does, but its level moves: this threshold tells how much of an
    accuracy is lost to the level alone. Of several that are equally good it is the middle of the widest gap between
    logits: with held-out images that are separated without error, halfway between the classes.
    """
    ranked = _Ranked.of(labels, logits)
    if not ranked.n_real or not ranked.n_fake:
        return None
    real, fake = ranked.right_at(ranked.cuts)
    # counts times the other class's size: exact integers, so that equally good cuts compare as equal
    balanced = real * ranked.n_fake + fake * ranked.n_real
    inner = ranked.cuts[1:-1]
    gaps = np.concatenate([[0.0], ranked.logits[inner] - ranked.logits[inner - 1], [0.0]])
    best = np.flatnonzero(balanced == balanced.max())
    cut = int(ranked.cuts[best[np.argmax(gaps[best])]])
    if cut == 0:
        return float(np.nextafter(ranked.logits[0], -np.inf))
    if cut == len(ranked.logits):
        return float(ranked.logits[-1])
    low, high = ranked.logits[cut - 1], ranked.logits[cut]
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Images of one set in ascending order of logit, and what every cut between two logits gets right.

    Attributes:
        logits: (N,) float64, ascending; equal logits are ordered by label, so that the order of rows changes nothing.
        fake: (N,) whether synthetic.
        below: (N + 1,) number of synthetic images among the first k.
        cuts: (C,) every k from 0 to N that separates unequal logits: the first k images are called real.
    """

    logits: NDArray[np.float64]
    fake: NDArray[np.bool_]
    below: NDArray[np.int64]
    cuts: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> _Ranked:
        exact = logits.astype(np.float64)
        order = np.lexsort((labels, exact))
        fake = labels[order] == 1
        exact = exact[order]
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(exact)) + 1, [len(exact)]])
        return cls(exact, fake, np.concatenate([[0], np.cumsum(fake)]), cuts)

    @property
    def n_fake(self) -> int:
        return int(self.below[-1])

    @property
    def n_real(self) -> int:
        return len(self.fake) - self.n_fake

    def cuts_of(self, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the cut that each threshold makes."""
        return np.searchsorted(self.logits, thresholds, side="right")

    def right_at(self, cuts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many real and how many synthetic images are on their side of each cut."""
        below = self.below[cuts]
        return cuts - below, self.n_fake - below

    def right_over(self, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return how many images are right at each threshold."""
        real, fake = self.right_at(self.cuts_of(thresholds))
        return real + fake


def _of_ranks(ranked: _Ranked) -> dict[str, float]:
    from sklearn.metrics import auc, average_precision_score, roc_curve  # noqa: PLC0415 - slow to import

    fpr, tpr, _ = roc_curve(ranked.fake, ranked.logits, drop_intermediate=False)
    enough = {name: one_in for name, one_in in ONE_IN.items() if ranked.n_real >= REALS_BEYOND * one_in}
    values = {name: float(tpr[fpr <= 1 / one_in].max()) for name, one_in in enough.items()}
    ap = float(average_precision_score(ranked.fake, ranked.logits))
    return {**values, "ap": ap, "roc_auc": float(auc(fpr, tpr))}


def _of_scores(ranked: _Ranked) -> dict[str, float]:
    from sklearn.metrics import brier_score_loss  # noqa: PLC0415 - slow to import

    scores = sigmoid(ranked.logits)
    bins = np.minimum((scores * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=scores - ranked.fake, minlength=ECE_BINS)
    brier = float(brier_score_loss(ranked.fake, scores, pos_label=True))
    return {"ece": float(np.abs(gaps).sum() / len(scores)), "brier": brier}


def unlabelled_threshold(logits: NDArray[np.float64], share: float = 0.5) -> NDArray[np.float64]:
    """Return (...) thresholds from logits (..., n) of images of which a ``share`` is synthetic, nobody knows which.

    That share of the images with the greatest logits is taken for synthetic; the threshold lies halfway between the
    mean logits of the two parts. Where n is even and half are synthetic it is the mean logit. (In simulations it came
    nearer to the oracle than the quantile and the best split in two did: docs/metrics.md.)
    """
    ordered = np.sort(logits, axis=-1)
    images = ordered.shape[-1]
    cut = min(max(round((1 - share) * images), 1), images - 1)
    low, high = (ordered[..., :cut], ordered[..., cut:]) if images > 1 else (ordered, ordered)
    thresholds: NDArray[np.float64] = (low.mean(axis=-1) + high.mean(axis=-1)) / 2
    return thresholds


def _unlabelled_accuracy(ranked: _Ranked, images: int) -> float:
    """Return the accuracy at the unlabelled threshold from ``images`` images, on the images not used for it.

    The mean over ``UNLABELLED_DRAWS`` draws with a fixed seed is given.
    """
    total = len(ranked.fake)
    random = np.random.default_rng(0)
    drawn = np.stack([random.choice(total, images, replace=False) for _ in range(UNLABELLED_DRAWS)])  # (R, images)
    thresholds = unlabelled_threshold(ranked.logits[drawn])
    used = ((ranked.logits[drawn] > thresholds[:, None]) == ranked.fake[drawn]).sum(axis=1)
    return float(((ranked.right_over(thresholds) - used) / (total - images)).mean())


def _why(metric: str, n_real: int, n_fake: int, unlabelled: int) -> str:
    """Say why a metric has no value."""
    if not n_real + n_fake:
        return "no images"
    if not n_real or not n_fake:
        return f"no {'synthetic' if n_real else 'real'} images"
    if metric == "calibrated_accuracy":
        return "no held-out scores of the training domain"
    if metric in ONE_IN:
        return f"{n_real} real images, fewer than the {REALS_BEYOND * ONE_IN[metric]:,} that this rate needs"
    return f"{n_real + n_fake} images, fewer than twice the {unlabelled} that set the threshold"
