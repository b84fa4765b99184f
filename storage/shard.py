"""One shard: the taps of up to a few thousand images in one HDF5 file that can be memory-mapped.

A tap is one dataset, layer-major and contiguous, no chunks, no filter (shapes: ``FeatureSpec.tap_shape``): the blocks
that a head needs are a few long runs on disk, and since a contiguous dataset has a place in the file it is read without
HDF5 and its lock. Another program's chunked dataset of the same shape is read through h5py, more slowly. Shards are
never opened for writing again: they are hard-linked into the DVC cache.

HDF5 lays the file out, then the features are written to their places with plain writes: a full disk is then an ordinary
error with its number, and the hash of the file is computed beside the writing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from storage.atomic import atomic_path, fsync
from storage.errors import DataError
from storage.spec import image_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from io import FileIO
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.spec import FeatureSpec

# Errors of file systems that have no such call; the room is then taken as the features are written.
_CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV}
# From this share of a run of rows on, reading the whole run beats jumping to its rows.
_DENSE = 0.5
# Rows that lie further apart begin another run; where runs have fewer rows than this on average, jumping is better.
_GAP, _RUN = 8, 16
# So many bytes are read at once (the measured best of 32 KiB to 8 MiB, from the disk and from memory).
_PIECE_BYTES = 128 << 10


def write_shard(path: Path, arrays: Mapping[str, NDArray[np.float16]], spec: FeatureSpec) -> str:
    """Write a shard atomically, read it back, and make it read-only.

    The reading back goes through the operating system's cache: it proves that file and arrays agree, not that the disk
    keeps them (``ltdpipe verify`` hashes the file again at any later time).

    Args:
        path: where it will lie.
        arrays: tap name -> float16 array of the shape that ``spec.tap_shape`` gives; the same N in all.
        spec: what the features are; stored as attributes ``schema``, ``key`` and ``spec``.

    Returns:
        The sha256 of the file, hex.

    Raises:
        ValueError: taps or shapes are not those of ``spec``.
        DataError: the file read back holds other numbers.
        ResourceError: the disk is full or may not be written to.
    """
    arrays = {tap: np.ascontiguousarray(arrays[tap]) for tap in sorted(arrays)}
    shapes = {tap: (array.dtype.name, array.shape) for tap, array in arrays.items()}
    images = next(iter(arrays.values())).shape[image_axis(next(iter(arrays)))] if arrays else 0
    expected = {tap: ("float16", spec.tap_shape(tap, images)) for tap in sorted(spec.taps)}
    if shapes != expected:
        raise ValueError(f"the arrays are {shapes}, the settings say {expected}")
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
        back = Shard.open(partial)
        for tap, array in arrays.items():  # compared to the bit, eight bytes at a time where they divide so
            word = np.uint64 if array.nbytes % 8 == 0 else np.uint16
            if not np.array_equal(np.asarray(back.map(tap)).reshape(-1).view(word), array.reshape(-1).view(word)):
                raise DataError(f"{path}: tap {tap!r} read back differs from what was written; is the disk sound?")
        synced.result()
        return digest.result()


def _lay_out(partial: Path, arrays: Mapping[str, NDArray[np.float16]], spec: FeatureSpec) -> dict[str, int]:
    """Write the HDF5 structure and no content; return tap -> offset of its dataset in bytes (none for empty ones)."""
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


@dataclass(frozen=True)
class TapPlace:
    """Where a tap lies: the dataset's shape, and its offset in the file in bytes, None where it has no single place."""

    shape: tuple[int, ...]
    offset: int | None


@dataclass(frozen=True)
class Shard:
    """A shard opened for reading. It holds no file open, so a corpus may have more shards than a process files."""

    path: Path
    key: str
    taps: Mapping[str, TapPlace]

    @classmethod
    def open(cls, path: Path) -> Shard:
        """Read the structure of a shard, not its features.

        Raises:
            DataError: the file is missing, is no HDF5 file, is shorter than its datasets (HDF5 compares them), or holds
                other numbers than float16.
        """
        try:
            with h5py.File(path, "r", locking=False) as file:
                key = str(file.attrs["key"])
                for name in file:
                    if file[name].dtype != np.dtype("<f2"):
                        raise ValueError(f"dataset {name} holds {file[name].dtype}, expected little-endian float16")
                taps = {name: TapPlace(file[name].shape, file[name].id.get_offset()) for name in file}
        except FileNotFoundError as error:
            raise DataError(f"shard {path} does not exist; run `ltdpipe extract` again to make it") from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DataError(f"shard {path} is damaged ({error}); run `ltdpipe verify --repair`") from error
        return cls(path, key, taps)

    def check(self, spec: FeatureSpec, rows: int) -> None:
        """Check that the shard holds what the index promises.

        Raises:
            DataError: it has another key, or a tap is missing or has another shape.
        """
        if self.key != spec.key:
            raise DataError(f"shard {self.path} has the feature key {self.key}, its index {spec.key}; extract again")
        for tap in spec.taps:
            found, expected = self.taps[tap].shape if tap in self.taps else "missing", spec.tap_shape(tap, rows)
            if found != expected:
                raise DataError(f"shard {self.path}: tap {tap!r} is {found}, expected {expected}; extract again")

    def map(self, tap: str) -> NDArray[np.float16]:
        """Return a whole tap as stored, memory-mapped and read-only; in memory where it has no single place."""
        place = self.taps[tap]
        if place.offset is None or 0 in place.shape:
            with h5py.File(self.path, "r", locking=False) as file:
                return np.asarray(file[tap][()])
        return np.memmap(self.path, mode="r", dtype="<f2", shape=place.shape, offset=place.offset)

    def read(self, tap: str, layers: Sequence[int] | None, rows: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """Read rows into ``out``: runs of many rows with plain reads, scattered rows through a memory map.

        Args:
            tap: which tap.
            layers: positions on the block axis, in the wanted order; None for a tap without one.
            rows: (M,) row numbers in this shard, ascending, each once.
            out: (M, L', ...) for ``layers``, (M, E) for None; may be a strided part of a larger array.
        """
        if not len(rows):
            return
        place = self.taps[tap]
        parts = [(0, out)] if layers is None else [(layer, out[:, at]) for at, layer in enumerate(layers)]
        if place.offset is None:
            with h5py.File(self.path, "r", locking=False) as file:
                for layer, target in parts:
                    target[:] = file[tap][rows] if layers is None else file[tap][layer, rows]
            return
        runs = [rows]
        if len(rows) < _DENSE * (rows[-1] - rows[0] + 1):
            runs = np.split(rows, np.flatnonzero(np.diff(rows) > _GAP) + 1)
        if len(runs) > 1 and len(rows) < _RUN * len(runs):
            stored = self.map(tap)
            for layer, target in parts:
                target[:] = (stored if layers is None else stored[layer])[rows]
            return
        images, *row_shape = place.shape[image_axis(tap) :]
        with self.path.open("rb", buffering=0) as file:
            done = 0
            for run in runs:
                for layer, target in parts:
                    offset = place.offset + layer * images * 2 * int(np.prod(row_shape))
                    _read_run(file, offset, row_shape, run, target[done : done + len(run)])
                done += len(run)


def _read_run(
    file: FileIO, offset: int, row_shape: Sequence[int], rows: NDArray[np.int64], target: NDArray[np.float16]
) -> None:
    """Read rows[0]..rows[-1] of a layer, which begins at ``offset``, in pieces, and keep the wanted ones.

    Pieces are small enough to be put in their place while they are in the processor's cache and while the operating
    system reads ahead: asked for more at once, or told to fetch all of it, it waits for the disk first.
    """
    row_bytes = 2 * int(np.prod(row_shape))
    first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
    at_once = min(span, max(1, _PIECE_BYTES // row_bytes))
    piece = np.empty((at_once, *row_shape), dtype="<f2")
    starts = range(first, first + span, at_once)
    bounds = np.searchsorted(rows, [*starts, first + span])  # rows[bounds[i]:bounds[i + 1]] lie in piece i
    for start, begin, end in zip(starts, bounds, bounds[1:], strict=False):
        read = piece[: min(at_once, first + span - start)]
        _read_at(file, offset + start * row_bytes, read)
        target[begin:end] = read if end - begin == len(read) else read[rows[begin:end] - start]


def _read_at(file: FileIO, offset: int, target: NDArray[np.float16]) -> None:
    rest = target.data.cast("B")
    while rest:
        count = os.preadv(file.fileno(), [rest], offset)
        if count == 0:
            raise DataError(
                f"shard {file.name} ended while it was read, at byte {offset}; run `ltdpipe verify --repair`"
            )
        offset += count
        rest = rest[count:]
