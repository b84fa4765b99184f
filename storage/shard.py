"""One shard: the taps of up to a few thousand images in one HDF5 file that can be memory-mapped.

A tap over blocks is one dataset of shape (L, N, D), layer-major and contiguous, no chunks, no filter: the blocks a
head needs are a few long runs on disk, and since a contiguous dataset has a file offset it is mapped without any HDF5
lock. The embedding is (N, E). Shards are never opened for writing again: they are hard-linked into the DVC cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np

from storage.atomic import atomic_path
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.spec import FeatureSpec


def to_stored(values: NDArray[np.floating], paths: Sequence[str], tap: str) -> NDArray[np.float16]:
    """Round to float16 for storage and refuse what would be lost.

    Args:
        values: (L, N, D) or (N, E) in the precision of the forward pass.
        paths: the N image paths, for the message.
        tap: the tap's name, for the message.

    Raises:
        DataError: a value is not finite, overflows float16 (65,504), or an image's features are all zero.
    """
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    rows = tuple(axis for axis in range(stored.ndim) if axis != stored.ndim - 2)
    faults = (
        (~np.isfinite(values).all(axis=rows), "is not finite"),
        (~np.isfinite(stored).all(axis=rows), "overflows float16"),
        (~stored.any(axis=rows), "is zero everywhere"),
    )
    for broken, what in faults:
        if broken.any():
            first = int(np.flatnonzero(broken)[0])
            raise DataError(f"tap {tap!r} of {paths[first]!r} {what}; backbone, weights or precision are broken")
    return stored


def write_shard(path: Path, arrays: Mapping[str, NDArray[np.float16]], spec: FeatureSpec) -> None:
    """Write a shard atomically, read it back, and make it read-only.

    Args:
        path: where it will lie.
        arrays: tap name -> (L, N, D) or (N, E) float16.
        spec: what the features are; stored as attributes ``schema``, ``key`` and ``spec``.
    """
    with atomic_path(path) as partial:
        with h5py.File(partial, "w") as file:
            file.attrs["schema"] = spec.schema
            file.attrs["key"] = spec.key
            file.attrs["spec"] = spec.to_json()
            for tap in sorted(arrays):
                file.create_dataset(tap, data=np.ascontiguousarray(arrays[tap]))
        back = map_shard(partial)
        for tap, array in arrays.items():
            if not np.array_equal(back[tap], array):
                raise DataError(f"{path}: tap {tap!r} read back differs from what was written; the disk is not sound")
        partial.chmod(0o444)


def map_shard(path: Path) -> dict[str, NDArray[np.float16]]:
    """Open a shard for reading: tap name -> array, memory-mapped where the dataset is contiguous.

    Raises:
        DataError: the file is missing, is no HDF5 file, or is shorter than its datasets.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return {name: _map_dataset(path, dataset) for name, dataset in file.items()}
    except FileNotFoundError as error:
        raise DataError(f"shard {path} does not exist; run `ltdpipe extract` again to make it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"shard {path} is damaged ({error}); delete it and run `ltdpipe extract` again") from error


def _map_dataset(path: Path, dataset: h5py.Dataset) -> NDArray[np.float16]:
    offset = dataset.id.get_offset()
    if offset is None or dataset.size == 0:  # chunked, compact or empty: no single place in the file to map
        return np.asarray(dataset[()], dtype=np.float16)
    return np.memmap(path, mode="r", dtype=dataset.dtype, shape=dataset.shape, offset=offset)
