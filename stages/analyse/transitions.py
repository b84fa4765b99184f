"""How the CLS token moves from block to block, and how well that separates real from synthetic images untrained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

# Blocks in a window: 2 is a single transition.
LONGEST_WINDOW = 9


def neighbouring(blocks: Sequence[int]) -> list[int]:
    """Return the transitions k -> k + 1 whose blocks are both among ``blocks``, as k, 0-based and ascending."""
    return [k for k in sorted(blocks) if k + 1 in blocks]


def transitions(cls: NDArray[np.floating[Any]], blocks: Sequence[int], *, first_row: int = 0) -> NDArray[np.float64]:
    """Return (N, T, 2): cosine similarity and L2 distance of the tokens after blocks k and k + 1 (paper, section 3).

    Args:
        cls: (N, L, D) CLS tokens.
        blocks: (L,) 0-based block numbers of the tokens, ascending; those of :func:`neighbouring` make the T
            transitions.
        first_row: number of the first image, for messages.

    Raises:
        DataError: a token is not finite or has length zero; the message names row and block.
    """
    norms = np.empty(cls.shape[:2])
    for i, block in enumerate(blocks):
        norms[:, i] = np.linalg.norm(cls[:, i].astype(np.float64), axis=1)
        bad = np.flatnonzero(~np.isfinite(norms[:, i]) | (norms[:, i] == 0))
        if len(bad):
            raise DataError(f"row {first_row + bad[0]}: the CLS token after block {block} is not finite or all zero")
    starts = neighbouring(blocks)
    moved = np.empty((len(cls), len(starts), 2))
    for t, i in enumerate(map(list(blocks).index, starts)):
        here, there = cls[:, i].astype(np.float64), cls[:, i + 1].astype(np.float64)
        cosine = np.einsum("nd,nd->n", here, there) / (norms[:, i] * norms[:, i + 1])
        moved[:, t, 0] = np.clip(cosine, -1.0, 1.0)
        moved[:, t, 1] = np.linalg.norm(there - here, axis=1)
    return moved


def divergences(attention: NDArray[np.floating[Any]], blocks: Sequence[int]) -> NDArray[np.float64]:
    """Return (N, T): how far the class token looks elsewhere in block k + 1 than in block k.

    It is the Jensen-Shannon divergence in bits, 0 for the same map and 1 for maps that have no patch in common.

    Args:
        attention: (N, L, P) its attention to the patches; what it gives to itself is left out of both.
        blocks: as for :func:`transitions`.
    """
    from scipy.special import rel_entr  # noqa: PLC0415 - slow to import

    maps = attention.astype(np.float64)
    maps /= maps.sum(axis=2, keepdims=True)
    here = [list(blocks).index(k) for k in neighbouring(blocks)]
    first, second = maps[:, here], maps[:, [at + 1 for at in here]]
    both = (first + second) / 2
    bits: NDArray[np.float64] = (rel_entr(first, both) + rel_entr(second, both)).sum(axis=2) / (2 * np.log(2))
    return bits.clip(0, 1)


def window_aucs(
    moved: NDArray[np.floating[Any]], starts: Sequence[int], real: NDArray[np.bool_], fake: NDArray[np.bool_]
) -> Iterator[tuple[int, int, float, float]]:
    """Yield (first block, n, AUC of cosine distance, AUC of L2 distance) of every window whose transitions are there.

    The score of an image is the mean over the window's transitions of 1 - cosine similarity, and of the L2 distance.
    An AUC above 0.5 says that synthetic images move more there, below 0.5 that real ones do.

    Args:
        moved: (N, T, 2) cosine similarity and L2 distance of every transition.
        starts: (T,) k of each transition k -> k + 1, ascending.
        real: (N,) the real images.
        fake: (N,) the synthetic images to separate from them.
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - slow to import

    column = {k: at for at, k in enumerate(starts)}
    windows = [
        (start, n)
        for n in range(2, LONGEST_WINDOW + 1)
        for start in starts
        if all(start + step in column for step in range(n - 1))
    ]
    n_real, n_fake = int(real.sum()), int(fake.sum())
    far = moved[np.concatenate([np.flatnonzero(real), np.flatnonzero(fake)])].astype(np.float64)
    far[:, :, 0] = 1 - far[:, :, 0]
    sums = np.cumsum(np.pad(far, ((0, 0), (1, 0), (0, 0))), axis=1)  # (N, T + 1, 2)
    means = [(sums[:, column[start] + n - 1] - sums[:, column[start]]) / (n - 1) for start, n in windows]
    # sums of unequal length differ in their last bits; ties have to stay ties
    ranks = rankdata(np.round(means, 12), axis=1)  # (W, N, 2)
    aucs = (ranks[:, n_real:].sum(axis=1) - n_fake * (n_fake + 1) / 2) / (n_real * n_fake)
    for window, pair in zip(windows, aucs.tolist(), strict=True):
        yield *window, *pair


def principal_components(features: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (M, 2) the first two principal components of features (M, F), and (2,) their shares of the variance.

    They are exact, from the Gram matrix, which is the smaller one with more features than images. The greatest loading
    of a component is positive, as in scikit-learn. Shares are 0 where nothing varies.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred @ centred.T)  # ascending
    values, vectors = values[:-3:-1].clip(0), vectors[:, :-3:-1]
    loadings = centred.T @ vectors
    signs = np.sign(loadings[np.abs(loadings).argmax(axis=0), [0, 1]])
    total = float((centred**2).sum())
    return vectors * np.sqrt(values) * signs, values / total if total else np.zeros(2)
