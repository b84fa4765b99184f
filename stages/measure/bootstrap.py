"""How sure metrics are: bootstrap over images, intervals from its spread, and tests of differences between heads.

Images are drawn with replacement within their class (and within their combination of test sets, so that an image that
several sets share is drawn as often in each of them), with a fixed seed. A replicate is a vector of counts: how often
each image was drawn. Metrics of all replicates come from sums over counts in one sorted order: nothing is sorted again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import betaincinv, expit, logit

from stages.evaluate.scores import sigmoid
from stages.measure.metrics import METRICS, ONE_IN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

REPLICATES = 1000
LEVEL = 0.95
_Z = 1.959964  # the normal quantile of that level

_CELLS_AT_ONCE = 2_000_000


def draw_counts(
    strata: NDArray[np.integer[Any]], *, replicates: int = REPLICATES, seed: int | Sequence[int] = 0
) -> Iterator[NDArray[np.uint8]]:
    """Yield (R', N) counts until ``replicates`` rows are drawn; R' depends on N alone.

    Args:
        strata: (N,) number of each image's stratum; every replicate has as many images of a stratum as there are.
        replicates: R.
        seed: of the draws, one number or several.
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

    def metrics(self, counts: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """Return metric -> (R,) for counts (R, N); every replicate has as many of each class as there are."""
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
        return {
            "ap": ap,
            "roc_auc": area,
            "accuracy": right,
            "accuracy_real": on_real,
            "accuracy_fake": on_fake,
            "balanced_accuracy": (on_real + on_fake) / 2,
            **{metric: self._tpr(hits, alarms, n_real // one_in) for metric, one_in in ONE_IN.items()},
            "calibrated_accuracy": calibrated,
            "brier": brier,
        }

    def _tpr(self, hits: NDArray[np.int32], alarms: NDArray[np.int32], allowed: int) -> NDArray[np.float64]:
        """Share of synthetic images above the first real image that would exceed the allowed false positives."""
        n_real = len(self._reals)
        first = (alarms[:, 1:] <= allowed).sum(axis=1)  # rank of the real that is one too many
        above = self._real_ends[np.minimum(first, n_real - 1)]
        padded = np.take_along_axis(hits, np.maximum(above - 1, 0)[:, None], axis=1)[:, 0]
        return np.where(above > 0, padded, 0) / len(self._fakes)


def interval(
    metric: str, value: float, replicates: NDArray[np.float64], sizes: Sequence[tuple[int, int]]
) -> tuple[float, float]:
    """Return the 95 % interval over images of a metric of one set, or of its mean over several.

    A share of images is a share of as many independent images as would spread like the replicates do (Korn and
    Graubard 1998), at most as many as there are; the interval is the wider one of Wilson's and of Jeffreys's (Brown,
    Cai and DasGupta 2001). It has a width, too, where every image is right. Ranks are more skewed near 1: theirs also
    holds the normal interval of the logit of the replicates. docs/metrics.md has the coverage.

    Args:
        metric: one of ``METRICS`` that has an interval.
        value: in 0..1.
        replicates: (R,) of the same quantity.
        sizes: (real, synthetic) images of each set in the mean.
    """
    from scipy.stats import t  # noqa: PLC0415 - slow to import

    variance = float(replicates.var())
    images = sum(METRICS[metric].images(*size) for size in sizes)
    spread_of = value * (1 - value) / variance if variance else np.inf
    if METRICS[metric].interval == "share":
        return _interval_of_share(value, min(spread_of, images), _Z)
    z = float(t.ppf((1 + LEVEL) / 2, max(sum(map(min, sizes)) - 1, 1)))
    low, high = _interval_of_share(value, spread_of if variance else images, z)
    if variance:
        least = 0.5 / sum(n_real * n_fake for n_real, n_fake in sizes)  # half a pair of images in the wrong order
        middle, spread = logit(np.clip(value, least, 1 - least)), logit(replicates.clip(least, 1 - least)).std()
        low, high = min(low, float(expit(middle - z * spread))), max(high, float(expit(middle + z * spread)))
    return low, high


def _interval_of_share(share: float, images: float, z: float) -> tuple[float, float]:
    """Return the wider ends of Wilson's and Jeffreys's 95 % intervals of a share of images."""
    middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    right, wrong = share * images, (1 - share) * images
    low, high = betaincinv(right + 0.5, wrong + 0.5, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = min(middle - half, low), max(middle + half, high)
    return float(max(low, 0.0)) if right else 0.0, float(min(high, 1.0)) if wrong else 1.0


class Difference(NamedTuple):
    """A difference, its 95 % interval, and the two-sided p value of "no difference"."""

    value: float
    low: float
    high: float
    p: float


def difference(
    metric: str,
    values: Sequence[float],
    others: Sequence[float],
    replicates: NDArray[np.float64],
    sizes: Sequence[tuple[int, int]],
) -> Difference:
    """Compare two heads on the same images: two methods, where both have several seeds, else these very weights.

    The variance over images is that of the paired replicates, and of one image more or less that is right, or one pair
    that is in order.

    Args:
        metric: what is compared.
        values: of the one head, one per seed.
        others: of the other head.
        replicates: (R,) of the difference between the means over seeds.
        sizes: (real, synthetic) images of each set in the mean.
    """
    share = METRICS[metric].interval == "share"
    least = 1 / sum(n_real + n_fake if share else n_real * n_fake for n_real, n_fake in sizes)
    over_images = float(replicates.var()) + least**2
    return of_trainings(float(np.mean(values) - np.mean(others)), over_images, values, others)


def of_trainings(value: float, over_images: float, *of_heads: Sequence[float]) -> Difference:
    """Return the interval and test of a mean over seeds, or of a difference of such, from its variance over images.

    Args:
        value: the mean, or the difference.
        over_images: its variance over test images, these weights given.
        of_heads: for each head in it, its values, one per seed. Where each has two or more, their variance between
            trainings comes on top (Welch); else nothing is known of it.
    """
    from scipy.stats import t  # noqa: PLC0415 - slow to import

    over_seeds, freedom = 0.0, np.inf
    if all(len(values) > 1 for values in of_heads):
        parts = [(float(np.var(values, ddof=1)) / len(values), len(values) - 1) for values in of_heads]
        over_seeds = sum(part for part, _ in parts)
    variance = over_images + over_seeds
    if over_seeds:
        freedom = over_seeds**2 / sum(part**2 / own for part, own in parts) * (variance / over_seeds) ** 2
    spread = variance**0.5
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * spread
    return Difference(value, value - half, value + half, float(2 * t.sf(abs(value) / spread, freedom)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjustment of a family of p values."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, (p, at) in enumerate(sorted((p, at) for at, p in enumerate(p_values))):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[at] = largest
    return adjusted
