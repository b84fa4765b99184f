"""Are images like those that a detector was calibrated on? Compared in the last features of its head.

A calibration promises something of images like its own and nothing of others. A batch is compared by a permutation test
of the energy distance (Szekely and Rizzo 2004), within the images of each verdict, so that another share of synthetic
images is no difference. Its null is exact: where the images of a verdict are exchangeable with the calibration's, p is
at most a with probability at most a. A single image has a conformal rank: how far it is from its nearest images of the
calibration, among the distances that these have from each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.heads.head import Head
    from storage.features import FeatureTable

LEAST = 30  # images of a batch that is tested
UNLIKE = 0.01  # p up to which a batch is called unlike the calibration's images
_MOST, _KEPT = 300, 500  # images of the calibration, and of a batch
_LEAST_OF_VERDICT = 10  # on each side; images of a rarer verdict are not compared
_NEIGHBOURS = 5
_PERMUTATIONS = 999


@torch.inference_mode()
def last_features(head: Head, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (N,) of a head, and (N, F) what its last layer read."""
    read: list[torch.Tensor] = []
    handle = head.classifier.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        return head(features), read[0]
    finally:
        handle.remove()


class Reference:
    """Images of the calibration.

    Args:
        features: (M, F) float32, what the head's last layer read.
        above: (M,) whether their logits are above the threshold.
    """

    def __init__(self, features: NDArray[np.float32], above: NDArray[np.bool_]) -> None:
        self.features, self.above = features, above
        self._scale = _scale(features)
        self._scaled = features / self._scale
        among = cdist(self._scaled, self._scaled)
        np.fill_diagonal(among, np.inf)
        self._distances = np.sort(_to_neighbours(among))

    def ranks(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return for features (N, F) the share of images like the calibration's that lie as far out or farther.

        An image that is exchangeable with them has a share of at most a with probability at most a.
        """
        own = _to_neighbours(cdist(features / self._scale, self._scaled))
        farther = len(self._distances) - np.searchsorted(self._distances, own, side="left")
        return (1 + farther) / (1 + len(self._distances))

    def outside(self, ranks: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether images (N,) lie farther out than all of the calibration, which one alike does once in M + 1 times."""
        return (ranks * (1 + len(self._distances)) < 1.5) & (len(self._distances) >= 99)

    def p_of_batch(self, features: NDArray[np.float32], above: NDArray[np.bool_]) -> float | None:
        """Return p of the test that a batch, (N, F) and (N,), is like the calibration's images; None for too few."""
        if len(features) < LEAST:
            return None
        random, statistics, compared = np.random.default_rng(0), np.zeros(1 + _PERMUTATIONS), False
        for verdict in (False, True):
            here, there = features[above == verdict], self.features[self.above == verdict]
            if min(len(here), len(there)) < _LEAST_OF_VERDICT:
                continue
            compared = True
            pooled = np.concatenate([here, there])
            distances = cdist(pooled / _scale(pooled), pooled / _scale(pooled))
            orders = [np.arange(len(pooled)), *(random.permutation(len(pooled)) for _ in range(_PERMUTATIONS))]
            chosen = np.zeros((len(orders), len(pooled)))
            np.put_along_axis(chosen, np.stack(orders)[:, : len(here)], 1.0, axis=1)
            statistics += len(here) * len(there) / len(pooled) * _energy(distances, chosen)
        if not compared:
            return None
        return float((1 + (statistics[1:] >= statistics[0] - 1e-9 * abs(statistics[0])).sum()) / len(statistics))


@dataclass
class Sample:
    """Up to 500 images of a run, each as likely as the others to be among them.

    Attributes:
        seen: how many images there were.
        features: what the head's last layer read of each kept.
        above: whether their logits are above the threshold.
    """

    seen: int = 0
    features: list[NDArray[np.float32]] = field(default_factory=list)
    above: list[bool] = field(default_factory=list)
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, features: NDArray[np.float32], *, above: bool) -> None:
        """Take an image into account."""
        self.seen += 1
        if len(self.features) < _KEPT:
            self.features.append(features)
            self.above.append(above)
        elif (place := int(self._random.integers(self.seen))) < _KEPT:
            self.features[place], self.above[place] = features, above

    def sentence(self, reference: Reference) -> str:
        """Say whether the images are like those of the calibration."""
        p = reference.p_of_batch(np.stack(self.features), np.array(self.above)) if self.features else None
        if p is None:
            return (
                f"whether they are like the calibration's images cannot be told: that takes {LEAST}, and "
                f"{_LEAST_OF_VERDICT} of one verdict on both sides"
            )
        if p > UNLIKE:
            return f"no difference from the calibration's images found (p = {p:.3f})"
        return f"unlike the calibration's images (p = {p:.3f}): what the calibration promises may not hold for these"


def reference_of(head: Head, table: FeatureTable, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return (M, F) last features of up to 300 of the images in ``rows`` of a view, evenly spread over them."""
    rows = rows[np.linspace(0, len(rows) - 1, min(_MOST, len(rows))).round().astype(np.int64)]
    read = table.read(head.reads.tap, blocks=head.reads.blocks or None, rows=rows)
    return last_features(head, torch.from_numpy(read).float())[1].half().numpy()


def _to_neighbours(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance to the fifth nearest of those in a row, or to the farthest of fewer."""
    finite = int(np.isfinite(distances[0]).sum())
    nearest: NDArray[np.float64] = np.sort(distances, axis=1)[:, min(_NEIGHBOURS, finite) - 1]
    return nearest


def _scale(features: NDArray[np.float32]) -> NDArray[np.float32]:
    spread = features.std(axis=0)
    return np.where(spread > 0, spread, 1).astype(np.float32)


def _energy(distances: NDArray[np.float64], chosen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (P,) energy distances between the images that a row of (P, N) ``chosen`` has as 1 and the others."""
    n = chosen[0].sum()
    m = len(distances) - n
    sums = chosen @ distances  # (P, N)
    within = (sums * chosen).sum(axis=1)
    between = sums.sum(axis=1) - within
    others = distances.sum() - within - 2 * between
    energy: NDArray[np.float64] = 2 * between / (n * m) - within / n**2 - others / m**2
    return energy
