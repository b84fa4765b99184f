"""The same picture twice: equal bytes by sha256, and near copies by the cosine of cached embeddings."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from stages.reporter import Reporter

_BLOCK = 1024
_ROUNDING = 1e-6  # of a cosine in float32: equal embeddings reach a threshold of 1
EXAMPLES = 50


class Alike:
    """Pairs of images that look the same: all of them counted, the most similar kept, as N images make up to N² pairs.

    Attributes:
        count: number of pairs.
        first: rows that are the first of a pair.
        second: rows that are the second of a pair, in the second table where two were compared.
        most_similar: (first, second, cosine) of at most ``EXAMPLES`` pairs, the most similar first.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: set[int] = set()
        self.second: set[int] = set()
        self.most_similar: list[tuple[int, int, float]] = []

    def add(self, first: NDArray[np.int64], second: NDArray[np.int64], cosine: NDArray[np.float32]) -> None:
        """Add pairs: (P,) rows, (P,) rows and (P,) cosines."""
        self.count += len(first)
        self.first.update(np.unique(first).tolist())
        self.second.update(np.unique(second).tolist())
        best = np.lexsort((second, first, -cosine))[:EXAMPLES]
        found = zip(first[best].tolist(), second[best].tolist(), cosine[best].tolist(), strict=True)
        self.most_similar = sorted([*self.most_similar, *found], key=lambda pair: (-pair[2], *pair[:2]))[:EXAMPLES]


def equal_groups(hashes: Sequence[str]) -> list[list[int]]:
    """Return the groups of rows, each of two or more, whose files have the same bytes."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, sha256 in enumerate(hashes):
        rows_of[sha256].append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def equal_between(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Return (row of first, row of second) for every row of ``first`` whose bytes are in ``second`` too."""
    at = {sha256: row for row, sha256 in enumerate(second)}
    return [(row, at[sha256]) for row, sha256 in enumerate(first) if sha256 in at]


def near_pairs(
    embeddings: NDArray[np.floating[Any]],
    others: NDArray[np.floating[Any]] | None,
    threshold: float,
    reporter: Reporter,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Find images that nearly look the same: cosine of centred embeddings at least ``threshold``.

    Embeddings share a large common part, which makes any two alike; it is taken off as the mean of ``embeddings``.
    The work is N x M x E multiplications, done in blocks.

    Args:
        embeddings: (N, E).
        others: (M, E), or None to compare ``embeddings`` with itself; then the first row is the smaller one.
        threshold: between 0 and 1.
        reporter: gets the progress.

    Yields:
        For each pair of blocks, (P,) rows of ``embeddings``, (P,) rows of ``others``, and (P,) cosines.
    """
    centre = embeddings.astype(np.float32).mean(axis=0)
    mine = _normalised(embeddings, centre)
    theirs = mine if others is None else _normalised(others, centre)
    with reporter.progress("compare embeddings", len(mine), "images") as progress:
        for start in range(0, len(mine), _BLOCK):
            block = mine[start : start + _BLOCK]
            for column in range(start if others is None else 0, len(theirs), _BLOCK):
                cosine = block @ theirs[column : column + _BLOCK].T  # (B, B')
                if others is None and column == start:
                    cosine[np.tril_indices(len(block))] = -1.0  # each pair once, no image with itself
                rows, columns = np.nonzero(cosine >= threshold - _ROUNDING)
                yield start + rows, column + columns, cosine[rows, columns]
            progress.advance(len(block))


def describe(alike: Alike, table: pa.Table, others: pa.Table | None = None) -> list[dict[str, Any]]:
    """Return the most similar pairs as mappings of paths, labels and cosine."""
    second = table if others is None else others
    return [
        {
            "first": table["path"][row].as_py(),
            "first_label": table["label"][row].as_py(),
            "second": second["path"][other].as_py(),
            "second_label": second["label"][other].as_py(),
            "cosine": round(cosine, 4),
        }
        for row, other, cosine in alike.most_similar
    ]


def _normalised(embeddings: NDArray[np.floating[Any]], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = embeddings.astype(np.float32) - centre
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    result: NDArray[np.float32] = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result
