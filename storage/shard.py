"""Writing one shard: the taps of up to a few thousand images in one HDF5 file that can be memory-mapped.

A tap is one dataset, layer-major and contiguous, no chunks, no filter (shapes: ``FeatureSpec.tap_shape``): the blocks
that a head needs are a few long runs on disk, and since a contiguous dataset has a place in the file it is read without
HDF5. Shards are never opened for writing again: they are hard-linked into the DVC cache.

HDF5 lays the file out, then the features are written to their places with plain writes: a full disk is then an ordinary
error with its number, and the hash of the file is computed beside the writing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import h5py
import numpy as np

from storage.atomic import atomic_path, fsync
from storage.errors import DataError
from storage.shard_reader import Shard
from storage.spec import image_axis

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.spec import FeatureSpec

# Errors of file systems that have no such call; the room is then taken as the features are written.
_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}


def write_shard(path: Path, arrays: Mapping[str, NDArray[np.float16]], spec: FeatureSpec) -> str:
    """Write a shard atomically, read it back, and make it read-only.

    The reading back goes through the operating system's cache: it proves that file and arrays agree, and that the file
    is a sound HDF5 file, not that the disk keeps it (``ltdpipe verify`` hashes it again at any later time).

    Args:
        path: where it will lie.
        arrays: tap name -> float16 array of the shape that ``spec.tap_shape`` gives; the same N in all. That no number
            is lost or broken, :func:`storage.spec.to_stored` has seen to.
        spec: what the features are; stored as attributes ``schema``, ``key`` and ``spec``.

    Returns:
        The sha256 of the file, hex.

    Raises:
        ValueError: taps or shapes are not those of ``spec``.
        DataError: the file read back holds other numbers.
        ResourceError: the disk is full or may not be written to.
    """
    arrays = {tap: np.ascontiguousarray(arrays[tap]) for tap in sorted(arrays)}
    _check_shapes(arrays, spec)
    with atomic_path(path, sync_folder=False) as partial, ThreadPoolExecutor(2) as threads:  # its sidecar follows
        try:
            places = _lay_out(partial, arrays, spec)
        except RuntimeError as error:  # how HDF5 closes a file that it cannot write: the system's error is in the text
            number = re.search(r"errno = (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        digest = threads.submit(_digest, partial, arrays, places)
        with partial.open("r+b", buffering=0) as file:
            _reserve(file.fileno())
            for tap, offset in places.items():
                _write_at(file.fileno(), offset, arrays[tap])
        partial.chmod(0o444)
        synced = threads.submit(fsync, partial)
        _check_content(Shard.open(partial), arrays, path)
        synced.result()
        return digest.result()


def _check_shapes(arrays: Mapping[str, NDArray[np.float16]], spec: FeatureSpec) -> None:
    if sorted(arrays) != sorted(spec.taps):
        raise ValueError(f"taps {sorted(arrays)} were given, the settings say {sorted(spec.taps)}")
    for tap, array in arrays.items():
        expected = spec.tap_shape(tap, array.shape[image_axis(tap)])
        if array.dtype != np.float16 or array.shape != expected:
            raise ValueError(f"tap {tap!r} is {array.dtype} {array.shape}, the settings say float16 {expected}")
    if len({array.shape[image_axis(tap)] for tap, array in arrays.items()}) != 1:
        raise ValueError(f"the taps hold different numbers of images: { {tap: a.shape for tap, a in arrays.items()} }")


def _lay_out(partial: Path, arrays: Mapping[str, NDArray[np.float16]], spec: FeatureSpec) -> dict[str, int]:
    """Write the HDF5 structure, and no content yet.

    Returns:
        tap -> offset of its dataset in the file in bytes; none for a tap without any number, which has no place.
    """
    places = {}
    contiguous = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    contiguous.set_layout(h5py.h5d.CONTIGUOUS)
    contiguous.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    contiguous.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    contiguous.set_obj_track_times(False)  # a time stamp would make every file another one
    with h5py.File(partial, "w") as file:
        file.attrs["schema"] = spec.schema
        file.attrs["key"] = spec.key
        file.attrs["spec"] = spec.to_json()
        for tap, array in arrays.items():
            space = h5py.h5s.create_simple(array.shape)
            dataset = h5py.h5d.create(file.id, tap.encode(), h5py.h5t.IEEE_F16LE, space, contiguous)
            if array.size:
                places[tap] = dataset.get_offset()
    return places


def _reserve(descriptor: int) -> None:
    """Take the room for the whole file at once: a third less time to write it, and a full disk is told at the start."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise


def _write_at(descriptor: int, offset: int, array: NDArray[np.float16]) -> None:
    rest = array.data.cast("B")
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        offset += written
        rest = rest[written:]


def _digest(partial: Path, arrays: Mapping[str, NDArray[np.float16]], places: Mapping[str, int]) -> str:
    """Hash the file as it will be: HDF5's own bytes from the disk, the features from memory, in the file's order."""
    digest = hashlib.sha256()
    with partial.open("rb") as file:
        for tap in sorted(places, key=places.__getitem__):
            digest.update(file.read(places[tap] - file.tell()))
            digest.update(arrays[tap].data)
            file.seek(places[tap] + arrays[tap].nbytes)
        digest.update(file.read())
    return digest.hexdigest()


def _check_content(back: Shard, arrays: Mapping[str, NDArray[np.float16]], path: Path) -> None:
    """Check that the file holds ``arrays`` to the bit, compared eight bytes at a time where they divide so."""
    for tap, array in arrays.items():
        word = np.uint64 if array.nbytes % 8 == 0 else np.uint16
        stored = back.map(tap).view(np.ndarray)
        if not np.array_equal(stored.reshape(-1).view(word), array.reshape(-1).view(word)):
            raise DataError(f"{path}: tap {tap!r} read back differs from what was written; is the disk sound?")
