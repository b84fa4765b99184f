"""How well a transition, or a window of transitions, tells real from synthetic images by itself, without training.

The score of an image is the mean over the window of how far its CLS token moves: of 1 - cosine similarity, and of the
L2 distance. An AUC above 0.5 says that synthetic images move more there, below 0.5 that real ones do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# Blocks in a window: 2 is a single transition.
LONGEST_WINDOW = 9


def windows_of(transitions: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first block, n) of every window of n = 2..9 adjacent blocks whose transitions are all there."""
    present = set(transitions)
    return [
        (start, n)
        for n in range(2, LONGEST_WINDOW + 1)
        for start in sorted(present)
        if all(start + step in present for step in range(n - 1))
    ]


def window_aucs(
    moves: NDArray[np.floating[Any]], transitions: Sequence[int], real: NDArray[np.bool_], fake: NDArray[np.bool_]
) -> Iterator[tuple[int, int, float, float]]:
    """Yield (first block, n, AUC of cosine distance, AUC of L2 distance) of every window.

    Args:
        moves: (N, T, 2) cosine similarity and L2 distance of every transition.
        transitions: (T,) k of each transition k -> k + 1, ascending.
        real: (N,) the real images.
        fake: (N,) the synthetic images to tell from them.
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import

    windows = windows_of(transitions)
    column = {k: at for at, k in enumerate(transitions)}
    chosen = np.concatenate([np.flatnonzero(real), np.flatnonzero(fake)])
    n_real, n_fake = int(real.sum()), int(fake.sum())
    far = moves[chosen].astype(np.float64)
    far[:, :, 0] = 1 - far[:, :, 0]
    aucs = []
    for quantity in range(2):
        sums = np.cumsum(np.pad(far[:, :, quantity], ((0, 0), (1, 0))), axis=1)
        means = [(sums[:, column[s] + n - 1] - sums[:, column[s]]) / (n - 1) for s, n in windows]
        # sums of unequal length differ in their last bits; ties have to stay ties
        ranks = rankdata(np.round(np.stack(means), 12), axis=1)  # (W, n_real + n_fake)
        above = ranks[:, n_real:].sum(axis=1) - n_fake * (n_fake + 1) / 2
        aucs.append(above / (n_real * n_fake))
    for (start, n), cosine, l2 in zip(windows, *aucs, strict=True):
        yield start, n, float(cosine), float(l2)
