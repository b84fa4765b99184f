"""Whether two heads really differ on the same images, and how often one asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


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
