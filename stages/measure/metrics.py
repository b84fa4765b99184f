"""Metrics of stored scores, over all images of a set at once, never averaged per batch.

``METRICS`` lists them. One that is undefined for a set (of one class, or of too few images) has a reason in place of a
value; it never enters a mean as 0. Ranks and thresholds are of logits in float64: sigmoid scores saturate near 0 and 1,
where different logits become one score. An image is called synthetic where its logit is greater than the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.evaluate.scores import sigmoid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

UNLABELLED = 100  # images that set the threshold of `unlabelled_accuracy`
UNLABELLED_DRAWS = 20
ECE_BINS = 15
# One real image in so many may be called synthetic.
ONE_IN = {"tpr_at_fpr_1": 100, "tpr_at_fpr_01": 1000}
# So many real images have to be beyond the threshold: with fewer, the interval of the rate is too narrow.
REALS_BEYOND = 5


class Scored(NamedTuple):
    """Images of one set in ascending order of logit, those of equal logit in order of label.

    Attributes:
        logits: (N,) float64.
        fake: (N,) whether synthetic.
        threshold: the logit from :func:`calibrated_threshold`; None where there is none.
    """

    logits: NDArray[np.float64]
    fake: NDArray[np.bool_]
    threshold: float | None = None

    @classmethod
    def of(
        cls, labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]], threshold: float | None = None
    ) -> Scored:
        """Sort images with ``labels`` (N,) and ``logits`` (N,), so that the order of rows changes nothing."""
        exact = logits.astype(np.float64)
        order = np.lexsort((labels, exact))
        return cls(exact[order], labels[order] == 1, threshold)

    def cuts(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return every k from 0 to N that separates unequal logits, and how many real and synthetic images are right.

        The first k images are called real.
        """
        k = np.concatenate([[0], np.flatnonzero(np.diff(self.logits)) + 1, [len(self.logits)]])
        fakes = np.concatenate([[0], np.cumsum(self.fake)])
        return k, k - fakes[k], fakes[-1] - fakes[k]


@dataclass(frozen=True)
class Metric:
    """One metric: how it is computed, and how it is shown.

    Attributes:
        title: what tables and figures call it.
        of: images -> value, or the reason why there is none; called only where the needed classes are there.
        needs: labels of which a set must have images: 0 real, 1 synthetic.
        shown: places that show it beside the tables of all metrics: "main" table, "headline" numbers, "tests" between
            heads.
        lower_is_better: as for errors.
        interval: "share" of images, or another quantity ("rank"); empty: it has no interval.
        images: (real, synthetic) -> of how many independent images it is a share, as far as their number alone tells.
    """

    title: str
    of: Callable[[Scored], float | str]
    needs: Collection[int] = (0, 1)
    shown: Collection[str] = ()
    lower_is_better: bool = False
    interval: str = ""
    images: Callable[[int, int], float] = int.__add__

    @property
    def heading(self) -> str:
        """The title where a line begins."""
        return self.title[0].upper() + self.title[1:]


def measure(
    labels: NDArray[np.integer[Any]],
    logits: NDArray[np.floating[Any]],
    *,
    threshold: float | None = None,
) -> dict[str, float | str]:
    """Return metric -> value of one set of images, or the reason why it has none.

    Args:
        labels: (N,) 0 real, 1 synthetic.
        logits: (N,) finite. The order of the rows changes nothing.
        threshold: the logit from :func:`calibrated_threshold`; None where there is none.
    """
    images = Scored.of(labels, logits, threshold)
    sizes = int((~images.fake).sum()), int(images.fake.sum())

    def value(metric: Metric) -> float | str:
        if not len(labels):
            return "no images"
        if not all(sizes[label] for label in metric.needs):
            return f"no {'synthetic' if sizes[0] else 'real'} images"
        return metric.of(images)

    return {name: value(metric) for name, metric in METRICS.items()}


def calibrated_threshold(labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> float | None:
    """Return the threshold with the greatest balanced accuracy on held-out images; None where a class is missing.

    A score does not change its order when its generator does, but its level moves: this threshold tells how much of an
    accuracy is lost to the level alone. Of several that are equally good it is the middle of the widest gap between
    logits: with held-out images that are separated without error, halfway between the classes.
    """
    images = Scored.of(labels, logits)
    ordered, n_fake = images.logits, int(images.fake.sum())
    if n_fake in (0, len(ordered)):
        return None
    cuts, real, fake = images.cuts()
    # counts times the other class's size: exact integers, so that equally good cuts compare as equal
    balanced = real * n_fake + fake * (len(ordered) - n_fake)
    inner = cuts[1:-1]
    gaps = np.concatenate([[0.0], ordered[inner] - ordered[inner - 1], [0.0]])
    best = np.flatnonzero(balanced == balanced.max())
    cut = int(cuts[best[np.argmax(gaps[best])]])
    if cut == 0:
        return float(np.nextafter(ordered[0], -np.inf))
    if cut == len(ordered):
        return float(ordered[-1])
    low, high = ordered[cut - 1], ordered[cut]
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


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


def _average_precision(images: Scored) -> float:
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 - slow to import

    return float(average_precision_score(images.fake, images.logits))


def _roc_auc(images: Scored) -> float:
    from sklearn.metrics import auc, roc_curve  # noqa: PLC0415 - slow to import

    return float(auc(*roc_curve(images.fake, images.logits, drop_intermediate=False)[:2]))


def _accuracy(images: Scored, threshold: float = 0.0) -> float:
    return float(((images.logits > threshold) == images.fake).mean())


def _accuracy_of(label: int, images: Scored) -> float:
    """Return the share of the images of one class that are right at score 0.5 (a logit of exactly 0 is real)."""
    return float(((images.logits[images.fake == label] > 0) == label).mean())


def _tpr(metric: str, images: Scored) -> float | str:
    reals = images.logits[~images.fake]
    needed = REALS_BEYOND * ONE_IN[metric]
    if len(reals) < needed:
        return f"{len(reals)} real images, fewer than the {needed:,} that this rate needs"
    one_too_many = reals[-1 - len(reals) // ONE_IN[metric]]
    return float((images.logits[images.fake] > one_too_many).mean())


def _oracle_accuracy(images: Scored) -> float:
    _, real, fake = images.cuts()
    return float((real + fake).max() / len(images.fake))


def _calibrated_accuracy(images: Scored) -> float | str:
    if images.threshold is None:
        return "no held-out scores of the training domain"
    return _accuracy(images, images.threshold)


def _unlabelled_accuracy(images: Scored) -> float | str:
    """Return the accuracy at the unlabelled threshold, on the images not used for it, over draws of a fixed seed."""
    total = len(images.fake)
    if total < 2 * UNLABELLED:
        return f"{total} images, fewer than twice the {UNLABELLED} that set the threshold"
    random = np.random.default_rng(0)
    accuracies = []
    for _ in range(UNLABELLED_DRAWS):
        drawn = random.choice(total, UNLABELLED, replace=False)
        right = (images.logits > unlabelled_threshold(images.logits[drawn])) == images.fake
        accuracies.append((right.sum() - right[drawn].sum()) / (total - UNLABELLED))
    return float(np.mean(accuracies))


def _calibration_error(images: Scored) -> float:
    scores = sigmoid(images.logits)
    bins = np.minimum((scores * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=scores - images.fake, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(scores))


def _brier(images: Scored) -> float:
    from sklearn.metrics import brier_score_loss  # noqa: PLC0415 - slow to import

    return float(brier_score_loss(images.fake, sigmoid(images.logits), pos_label=True))


METRICS: Mapping[str, Metric] = {
    "ap": Metric("AP", _average_precision, shown=("main", "headline", "tests"), interval="rank", images=min),
    "roc_auc": Metric("ROC AUC", _roc_auc, shown=("tests",), interval="rank", images=min),
    "accuracy": Metric("accuracy", _accuracy, shown=("main", "headline", "tests"), interval="share"),
    "accuracy_real": Metric(
        "accuracy on real",
        partial(_accuracy_of, 0),
        needs=(0,),
        interval="share",
        images=lambda n_real, _: n_real,
    ),
    "accuracy_fake": Metric(
        "accuracy on fake",
        partial(_accuracy_of, 1),
        needs=(1,),
        interval="share",
        images=lambda _, n_fake: n_fake,
    ),
    "balanced_accuracy": Metric(
        "balanced accuracy",
        lambda images: (_accuracy_of(0, images) + _accuracy_of(1, images)) / 2,
        interval="share",
        images=lambda n_real, n_fake: 4 / (1 / n_real + 1 / n_fake),
    ),
    "tpr_at_fpr_1": Metric(
        "TPR at 1 % FPR", partial(_tpr, "tpr_at_fpr_1"), interval="rank", images=lambda _, n_fake: n_fake
    ),
    "tpr_at_fpr_01": Metric(
        "TPR at 0.1 % FPR", partial(_tpr, "tpr_at_fpr_01"), interval="rank", images=lambda _, n_fake: n_fake
    ),
    "oracle_accuracy": Metric("oracle accuracy", _oracle_accuracy, shown=("main",)),
    "calibrated_accuracy": Metric(
        "accuracy, held-out threshold", _calibrated_accuracy, shown=("main",), interval="share"
    ),
    "unlabelled_accuracy": Metric("accuracy, unlabelled threshold", _unlabelled_accuracy),
    "ece": Metric("ECE", _calibration_error, lower_is_better=True),
    "brier": Metric("Brier score", _brier, lower_is_better=True, interval="rank"),
}


def shown_in(place: str) -> tuple[str, ...]:
    """Return the metrics that a place shows, in order."""
    return tuple(name for name, metric in METRICS.items() if place in metric.shown)
