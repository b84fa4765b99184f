"""The same picture twice: equal bytes by sha256, and near copies by the cosine of cached embeddings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from stages.reporter import Reporter

_BLOCK = 1024
EXAMPLES = 50


@dataclass(frozen=True)
class Pair:
    """Two images that look the same.

    Attributes:
        first: row of the first.
        second: row of the second, in the second table where two were compared.
        cosine: of their centred embeddings.
    """

    first: int
    second: int
    cosine: float


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
) -> list[Pair]:
    """Find images that nearly look the same: cosine of centred embeddings at least ``threshold``.

    Embeddings share a large common part, which makes any two alike; it is taken off as the mean of ``embeddings``.
    The work is N x M x E multiplications, done in blocks.

    Args:
        embeddings: (N, E).
        others: (M, E), or None to compare ``embeddings`` with itself; then ``first < second``.
        threshold: between 0 and 1.
        reporter: gets the progress.

    Returns:
        Pairs in order of rows.
    """
    centre = embeddings.astype(np.float32).mean(axis=0)
    mine = _normalised(embeddings, centre)
    theirs = mine if others is None else _normalised(others, centre)
    found = []
    with reporter.progress("compare embeddings", len(mine), "images") as progress:
        for start in range(0, len(mine), _BLOCK):
            block = mine[start : start + _BLOCK]
            for column in range(start if others is None else 0, len(theirs), _BLOCK):
                cosine = block @ theirs[column : column + _BLOCK].T  # (B, B')
                for row, other in np.argwhere(cosine >= threshold):
                    first, second = start + int(row), column + int(other)
                    if others is not None or first < second:
                        found.append(Pair(first, second, float(cosine[row, other])))
            progress.advance(len(block))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def describe(pairs: Sequence[Pair], table: pa.Table, others: pa.Table | None = None) -> list[dict[str, Any]]:
    """Return the most similar pairs as mappings of paths, labels and cosine, at most ``EXAMPLES``."""
    second = table if others is None else others
    alike = sorted(pairs, key=lambda pair: (-pair.cosine, pair.first, pair.second))[:EXAMPLES]
    return [
        {
            "first": table["path"][pair.first].as_py(),
            "first_label": table["label"][pair.first].as_py(),
            "second": second["path"][pair.second].as_py(),
            "second_label": second["label"][pair.second].as_py(),
            "cosine": round(pair.cosine, 4),
        }
        for pair in alike
    ]


def _normalised(embeddings: NDArray[np.floating[Any]], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = embeddings.astype(np.float32) - centre
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    result: NDArray[np.float32] = centred / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result
