"""How the CLS token moves from block to block: the paper's observation, per group of images.

For every transition k -> k + 1 of the backbone: the cosine similarity and the L2 distance between the CLS tokens
after block k and after block k + 1 (paper, section 3), averaged over a group of images; and how well the moves of a
window of adjacent blocks tell real from synthetic images by themselves, without training.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

# Blocks in a window: 2 is a single transition.
LONGEST_WINDOW = 9


@dataclass(frozen=True, eq=False)
class Profile:
    """Statistics of G groups over T transitions.

    Attributes:
        transitions: (T,) k of each transition k -> k + 1, 0-based.
        count: (G,) number of images.
        mean: (G, T, 2) mean of cosine similarity and L2 distance; NaN where a group has no image.
        std: (G, T, 2) standard deviation over the images (ddof = 1); NaN where a group has fewer than two.
    """

    transitions: NDArray[np.int64]
    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def transition_profiles(
    batches: Iterable[tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]],
    *,
    blocks: Sequence[int],
    groups: int,
    on_moves: Callable[[NDArray[np.float64]], None] | None = None,
) -> Profile:
    """Accumulate transition statistics over batches, in float64, holding one batch at a time.

    Args:
        batches: pairs of CLS tokens (N, L, D) and group numbers (N,), each 0..groups-1.
        blocks: (L,) 0-based block numbers of the tokens, ascending; pairs of neighbours k, k + 1 make the transitions.
        groups: G.
        on_moves: called with (N, T, 2), the cosine similarities and L2 distances of each batch.

    Raises:
        DataError: a token is not finite or has length zero; the message names row and block.
        ValueError: a batch has another number of blocks, or no two blocks are neighbours.
    """
    pairs = [i for i, (block, after) in enumerate(pairwise(blocks)) if after == block + 1]
    if not pairs:
        raise ValueError(f"expected at least two neighbouring blocks, got {list(blocks)}")
    count = np.zeros(groups, dtype=np.int64)
    mean = np.zeros((groups, len(pairs), 2))
    squares = np.zeros((groups, len(pairs), 2))
    seen = 0
    for cls, members in batches:
        if cls.ndim != 3 or cls.shape[1] != len(blocks) or len(members) != len(cls):
            raise ValueError(f"expected (N, {len(blocks)}, D) tokens and (N,) groups, got {cls.shape}, {members.shape}")
        moves = _moves(cls, blocks, pairs, seen)
        seen += len(cls)
        if on_moves is not None:
            on_moves(moves)
        for group in np.unique(members):
            chosen = moves[members == group]
            # Chan, Golub and LeVeque's update: exact for any batch size, no cancellation of large sums of squares.
            total = count[group] + len(chosen)
            step = chosen.mean(axis=0) - mean[group]
            squares[group] += ((chosen - chosen.mean(axis=0)) ** 2).sum(axis=0)
            squares[group] += step**2 * (count[group] * len(chosen) / total)
            mean[group] += step * (len(chosen) / total)
            count[group] = total
    degrees = (count - 1).astype(np.float64)[:, None, None]
    std = np.sqrt(np.divide(squares, degrees, out=np.full_like(squares, np.nan), where=degrees > 0))
    mean[count == 0] = np.nan
    return Profile(np.array([blocks[i] for i in pairs]), count, mean, std)


def _moves(
    cls: NDArray[np.floating[Any]], blocks: Sequence[int], pairs: Sequence[int], offset: int
) -> NDArray[np.float64]:
    """Return (N, T, 2): cosine similarity and L2 distance of each image's transitions."""
    moves = np.empty((len(cls), len(pairs), 2))
    norms = np.empty((len(cls), len(blocks)))
    for i, block in enumerate(blocks):
        norms[:, i] = np.linalg.norm(cls[:, i].astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(norms[:, i]) | (norms[:, i] == 0))
        if len(bad):
            raise DataError(f"row {offset + bad[0]}: the CLS token after block {block} is not finite or all zero")
    for t, i in enumerate(pairs):
        here, there = cls[:, i].astype(np.float64), cls[:, i + 1].astype(np.float64)
        cosine = np.einsum("nd,nd->n", here, there) / (norms[:, i] * norms[:, i + 1])
        moves[:, t, 0] = np.clip(cosine, -1.0, 1.0)
        moves[:, t, 1] = np.linalg.norm(there - here, axis=1)
    return moves


def window_aucs(
    moves: NDArray[np.floating[Any]], transitions: Sequence[int], real: NDArray[np.bool_], fake: NDArray[np.bool_]
) -> Iterator[tuple[int, int, float, float]]:
    """Yield (first block, n, AUC of cosine distance, AUC of L2 distance) of every window whose transitions are there.

    The score of an image is the mean over the window's transitions of 1 - cosine similarity, and of the L2 distance.
    An AUC above 0.5 says that synthetic images move more there, below 0.5 that real ones do.

    Args:
        moves: (N, T, 2) cosine similarity and L2 distance of every transition.
        transitions: (T,) k of each transition k -> k + 1, ascending.
        real: (N,) the real images.
        fake: (N,) the synthetic images to tell from them.
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import

    column = {k: at for at, k in enumerate(transitions)}
    windows = [
        (start, n)
        for n in range(2, LONGEST_WINDOW + 1)
        for start in transitions
        if all(start + step in column for step in range(n - 1))
    ]
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
