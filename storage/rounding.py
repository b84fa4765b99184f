"""Rounding features to float16, as they are stored; without HDF5, since predicting rounds and stores nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from storage.errors import DataError
from storage.spec import image_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def to_stored(values: NDArray[np.floating], paths: Sequence[str], tap: str) -> NDArray[np.float16]:
    """Round to float16 for storage and refuse what would be lost.

    Args:
        values: a tap in the precision of the forward pass, (L, N, D), (L, N, G*G, D) or (N, E).
        paths: the N image paths, for the message.
        tap: the tap's name.

    Raises:
        DataError: a value is not finite, overflows float16 (65,504), or an image's features are all zero.
    """
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    others = tuple(axis for axis in range(stored.ndim) if axis != image_axis(tap))
    faults = (
        (~np.isfinite(values).all(axis=others), "is not finite"),
        (~np.isfinite(stored).all(axis=others), "overflows float16"),
        (~stored.any(axis=others), "is zero everywhere"),
    )
    for broken, what in faults:
        if broken.any():
            first = int(np.flatnonzero(broken)[0])
            raise DataError(f"tap {tap!r} of {paths[first]!r} {what}; backbone, weights or precision are broken")
    return stored
