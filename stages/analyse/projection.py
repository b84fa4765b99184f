"""Raw against transition features in two dimensions: where a picture shows what the differences bring out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.heads.settings import LtdSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from storage.features import FeatureTable

SAMPLE = 1200


@dataclass(frozen=True, eq=False)
class Projection:
    """Principal components of a sample of images.

    Attributes:
        blocks: the blocks whose CLS tokens were projected.
        rows: (M,) which of the images they are.
        points: (M, 2, 2) first two components of the raw tokens and of their differences.
        explained: (2, 2) share of the variance that each component holds; 0 where there is none.
    """

    blocks: tuple[int, ...]
    rows: NDArray[np.int64]
    points: NDArray[np.float64]
    explained: NDArray[np.float64]


def sample_rows(groups: NDArray[np.int64], size: int = SAMPLE) -> NDArray[np.int64]:
    """Return at most ``size`` row numbers, spread evenly over groups (N,) and over the rows of each."""
    numbers = np.unique(groups)
    share = max(1, size // max(len(numbers), 1))
    chosen = []
    for number in numbers:
        rows = np.flatnonzero(groups == number)
        chosen.append(rows[np.linspace(0, len(rows) - 1, min(share, len(rows))).round().astype(np.int64)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def candidate_blocks(stored: Sequence[int], blocks: int) -> tuple[int, ...]:
    """Return the stored blocks among the method's default candidates, or all stored ones when fewer than two are."""
    first, last = LtdSettings().candidates_for(blocks)
    found = tuple(block for block in sorted(stored) if first <= block <= last)
    return found if len(found) > 1 else tuple(sorted(stored))


def project(table: FeatureTable, images: NDArray[np.int64], groups: NDArray[np.int64]) -> Projection | None:
    """Project a sample of a feature table; None with fewer than three images, where there is nothing to see.

    Args:
        table: features with the tap "cls".
        images: (N,) row numbers of the images.
        groups: (N,) number of each one's group.
    """
    rows = sample_rows(groups)
    if len(rows) < 3:
        return None
    blocks = candidate_blocks(table.spec.stored_blocks, table.spec.blocks)
    tokens = table.read("cls", blocks=blocks, rows=images[rows]).astype(np.float32)  # (M, n, D)
    parts = [_components(features.reshape(len(rows), -1)) for features in (tokens, np.diff(tokens, axis=1))]
    points, explained = (np.stack(part, axis=axis) for part, axis in zip(zip(*parts, strict=True), (1, 0), strict=True))
    return Projection(blocks, rows, points, explained)


def _components(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (M, 2) the first two principal components of features (M, F), and (2,) the variance that they hold.

    They are exact, from the Gram matrix: with more features than images that is the smaller one. The greatest loading
    of a component is positive, as in scikit-learn.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred @ centred.T)  # ascending
    values, vectors = values[:-3:-1].clip(0), vectors[:, :-3:-1]
    loadings = centred.T @ vectors
    signs = np.sign(loadings[np.abs(loadings).argmax(axis=0), [0, 1]])
    total = float((centred**2).sum())
    return vectors * np.sqrt(values) * signs, values / total if total else np.zeros(2)
