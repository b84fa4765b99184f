"""Thresholds on logits: the oracle's, one from held-out data, one from a few unlabelled images of the target.

A score does not change its order when its generator does, but its level moves: AP transfers between generators better
than the threshold 0.5. These functions tell how much of an accuracy is lost to the threshold alone. All of them say
"synthetic" where logit > threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNLABELLED_DRAWS = 20


@dataclass(frozen=True, eq=False)
class Ranked:
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
    def of(cls, labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> Ranked:
        """Sort labels (N,) 0 or 1 and logits (N,)."""
        exact = logits.astype(np.float64)
        order = np.lexsort((labels, exact))
        fake = labels[order] == 1
        exact = exact[order]
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(exact)) + 1, [len(exact)]])
        return cls(exact, fake, np.concatenate([[0], np.cumsum(fake)]), cuts)

    @property
    def n_fake(self) -> int:
        """Number of synthetic images."""
        return int(self.below[-1])

    @property
    def n_real(self) -> int:
        """Number of real images."""
        return len(self.fake) - self.n_fake

    def right_at(self, cuts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many real and how many synthetic images are on their side of each cut."""
        below = self.below[cuts]
        return cuts - below, self.n_fake - below

    def right_over(self, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return how many images are right at each threshold."""
        real, fake = self.right_at(np.searchsorted(self.logits, thresholds, side="right"))
        return real + fake

    def between(self, cut: int) -> float:
        """Return a threshold at ``cut``: halfway between its two logits, or beyond the last one."""
        if cut == 0:
            return float(np.nextafter(self.logits[0], -np.inf))
        if cut == len(self.logits):
            return float(self.logits[-1])
        low, high = self.logits[cut - 1], self.logits[cut]
        middle = low + (high - low) / 2
        return float(middle if middle < high else low)


def oracle(ranked: Ranked) -> tuple[float, float]:
    """Return the greatest accuracy that any threshold reaches, and such a threshold; N >= 1.

    Nobody has this threshold: it is chosen with the labels of the very images that are tested.
    """
    real, fake = ranked.right_at(ranked.cuts)
    best = int(np.argmax(real + fake))
    return float((real + fake)[best] / len(ranked.fake)), ranked.between(int(ranked.cuts[best]))


def calibrated_threshold(labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> float | None:
    """Return the threshold with the greatest balanced accuracy on held-out images; None where a class is missing.

    Of several that are equally good it is the middle of the widest gap between logits: with held-out images that are
    separated without error, halfway between the classes.
    """
    ranked = Ranked.of(labels, logits)
    if not ranked.n_real or not ranked.n_fake:
        return None
    real, fake = ranked.right_at(ranked.cuts)
    # counts times the other class's size: exact integers, so that equally good cuts compare as equal
    balanced = real * ranked.n_fake + fake * ranked.n_real
    inner = ranked.cuts[1:-1]
    gaps = np.concatenate([[0.0], ranked.logits[inner] - ranked.logits[inner - 1], [0.0]])
    best = np.flatnonzero(balanced == balanced.max())
    return ranked.between(int(ranked.cuts[best[np.argmax(gaps[best])]]))


def unlabelled_accuracy(ranked: Ranked, images: int) -> float:
    """Return the accuracy at a threshold from ``images`` unlabelled images, on the images not used for it.

    The threshold is the mean logit of images drawn at random: it takes about half of the target's images to be
    synthetic, as in the benchmarks. (In simulations the mean came nearer to the oracle than the median and the best
    split in two did: docs/metrics.md.) The mean over ``UNLABELLED_DRAWS`` draws with a fixed seed is given.

    Args:
        ranked: the images; there are more of them than ``images``.
        images: how many are drawn each time.
    """
    total = len(ranked.fake)
    random = np.random.default_rng(0)
    drawn = np.stack([random.choice(total, images, replace=False) for _ in range(UNLABELLED_DRAWS)])  # (R, images)
    thresholds = ranked.logits[drawn].mean(axis=1)
    used = ((ranked.logits[drawn] > thresholds[:, None]) == ranked.fake[drawn]).sum(axis=1)
    return float(((ranked.right_over(thresholds) - used) / (total - images)).mean())
