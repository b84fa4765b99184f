"""How sure metrics are: bootstrap over images, and whether two heads really differ on the same images.

Images are drawn with replacement within their class (and within their combination of test sets, so that an image that
several sets share is drawn as often in each of them), with a fixed seed. A replicate is a vector of counts: how often
each image was drawn. Metrics of all replicates come from sums over counts in one sorted order: nothing is sorted again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stages.evaluate.metrics import ONE_IN
from stages.evaluate.scores import sigmoid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

BOOTSTRAPPED = (
    "ap",
    "roc_auc",
    "accuracy",
    "accuracy_real",
    "accuracy_fake",
    "balanced_accuracy",
    "tpr_at_fpr_1",
    "tpr_at_fpr_01",
    "calibrated_accuracy",
    "brier",
)
REPLICATES = 1000
LEVEL = 0.95

_CELLS_AT_ONCE = 2_000_000


def draw_counts(
    strata: NDArray[np.integer[Any]], *, replicates: int = REPLICATES, seed: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """Yield (R', N) counts until ``replicates`` rows are drawn; R' depends on N alone.

    Args:
        strata: (N,) number of each image's stratum; every replicate has as many images of a stratum as there are.
        replicates: R.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    at_once = max(1, _CELLS_AT_ONCE // max(len(strata), 1))
    for start in range(0, replicates, at_once):
        rows = min(at_once, replicates - start)
        counts = np.zeros((rows, len(strata)), dtype=np.uint8)
        for images in members:
            drawn = random.integers(0, len(images), (rows, len(images)), dtype=np.int32)
            drawn += np.arange(rows, dtype=np.int32)[:, None] * len(images)
            # an image drawn more than 255 times has probability below 1e-500
            counts[:, images] = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield counts


class Resampler:
    """Metrics of replicates of one set as one head scores it; built once, used for every batch of counts.

    Args:
        labels: (N,) 0 or 1, both present.
        logits: (N,) finite.
        threshold: for ``calibrated_accuracy``; None leaves it NaN.
    """

    def __init__(
        self, labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]], threshold: float | None = None
    ) -> None:
        fake, exact = labels == 1, logits.astype(np.float64)
        order = np.argsort(-exact, kind="stable")
        self._fakes, self._reals = order[fake[order]], order[~fake[order]]
        if not len(self._fakes) or not len(self._reals):
            raise ValueError("expected images of both classes")
        falling, falling_reals = exact[self._fakes], -exact[self._reals]
        # for each group of synthetic images of one logit: its last member, and the reals above it and not below it
        self._ends = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
        self._reals_above = np.searchsorted(falling_reals, -falling[self._ends], side="left")
        self._reals_to = np.searchsorted(falling_reals, -falling[self._ends], side="right")
        self._real_ends = np.searchsorted(-falling, falling_reals, side="left")  # synthetic images above each real
        self._tied = len(np.unique(exact)) < len(exact)
        calibrated = np.full(len(exact), np.nan) if threshold is None else (exact > threshold) == fake
        columns = [(exact > 0) == fake, calibrated, (sigmoid(exact) - fake) ** 2]
        self._columns = np.stack(columns, axis=1).astype(np.float64)

    def metrics(self, counts: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return (R, len(BOOTSTRAPPED)) for counts (R, N); every replicate has as many of each class as there are."""
        n_fake, n_real = len(self._fakes), len(self._reals)
        of_fakes, of_reals = counts[:, self._fakes], counts[:, self._reals]
        hits = np.cumsum(of_fakes, axis=1, dtype=np.int32)  # (R, n_fake)
        alarms = np.zeros((len(counts), n_real + 1), dtype=np.int32)
        np.cumsum(of_reals, axis=1, dtype=np.int32, out=alarms[:, 1:])
        tp = hits[:, self._ends]
        new = np.diff(tp, axis=1, prepend=0)
        fp = alarms[:, self._reals_to]
        precision = tp / np.maximum(tp + fp, 1)
        ap = np.einsum("rg,rg->r", new, precision) / n_fake
        above = (fp + alarms[:, self._reals_above]) if self._tied else 2 * fp
        area = 1 - np.einsum("rg,rg->r", new, above, dtype=np.float64) / (2.0 * n_fake * n_real)
        real_sums = of_reals.astype(np.float64) @ self._columns[self._reals]
        fake_sums = of_fakes.astype(np.float64) @ self._columns[self._fakes]
        right, calibrated, brier = ((real_sums + fake_sums) / (n_real + n_fake)).T
        on_real, on_fake = real_sums[:, 0] / n_real, fake_sums[:, 0] / n_fake
        rates = [self._tpr(hits, alarms, n_real // one_in) for one_in in ONE_IN.values()]
        parts = [ap, area, right, on_real, on_fake, (on_real + on_fake) / 2, *rates, calibrated, brier]
        return np.stack(parts, axis=1)

    def _tpr(self, hits: NDArray[np.int32], alarms: NDArray[np.int32], allowed: int) -> NDArray[np.float64]:
        """Share of synthetic images above the first real image that would exceed the allowed false positives."""
        n_real = len(self._reals)
        first = (alarms[:, 1:] <= allowed).sum(axis=1)  # rank of the real that is one too many
        above = self._real_ends[np.minimum(first, n_real - 1)]
        padded = np.take_along_axis(hits, np.maximum(above - 1, 0)[:, None], axis=1)[:, 0]
        return np.where(above > 0, padded, 0) / len(self._fakes)


def interval(replicates: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of replicates (R,)."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p value of "no difference" from paired bootstrap differences (R,).

    Twice the smaller share of replicates on either side of 0, counting the observed sample itself: never below
    2 / (R + 1).
    """
    smaller = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(differences) + 1))


def mcnemar_p(right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> float:
    """Return the exact two-sided p value of McNemar's test: do two heads err equally often on the same images?

    Args:
        right: (N,) which images the one head gets right.
        other_right: (N,) the same of the other head.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - slow to import

    only_one, only_other = int((right & ~other_right).sum()), int((~right & other_right).sum())
    if not only_one + only_other:
        return 1.0
    return float(binomtest(only_one, only_one + only_other).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return Holm's step-down adjustment of a family of p values; None (not tested) is no member of the family."""
    tested = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, at) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[at] = largest
    return adjusted
