"""Reading one shard: any blocks and rows of a tap, straight from their place in the file.

A contiguous dataset is read without HDF5 and without its lock: long runs with plain reads, scattered rows through a
memory map. Another program's chunked dataset of the same shape is read through h5py, more slowly.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from storage.errors import DataError
from storage.spec import image_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.spec import FeatureSpec

# From this share of a run of rows on, reading the whole run beats jumping to its rows.
_DENSE = 0.5
# So many bytes are read at once (the measured best of 32 KiB to 8 MiB, from the disk and from memory).
_PIECE_BYTES = 128 << 10


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
                taps = {name: _place(path, file[name]) for name in file}
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
            expected = spec.tap_shape(tap, rows)
            found = self.taps[tap].shape if tap in self.taps else "missing"
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
        """Read rows into ``out``.

        Args:
            tap: which tap.
            layers: positions on the block axis, in the wanted order; None for the embedding, which has no such axis.
            rows: (M,) row numbers in this shard, ascending, each once.
            out: (M, L', ...) for ``layers``, (M, E) for None; may be a strided part of a larger array.
        """
        if not len(rows):
            return
        place = self.taps[tap]
        parts = [(0, out)] if layers is None else [(layer, out[:, at]) for at, layer in enumerate(layers)]
        span = int(rows[-1] - rows[0]) + 1
        if place.offset is None:
            self._read_through_hdf5(tap, layers, rows, out)
        elif len(rows) >= _DENSE * span:
            self._read_run(place, image_axis(tap), parts, rows)
        else:
            stored = self.map(tap)
            for layer, target in parts:
                target[:] = (stored if layers is None else stored[layer])[rows]

    def _read_run(
        self,
        place: TapPlace,
        axis: int,
        parts: list[tuple[int, NDArray[np.float16]]],
        rows: NDArray[np.int64],
    ) -> None:
        """Read rows[0]..rows[-1] of each layer in pieces, and keep the wanted ones.

        Pieces are small enough to be put in their place while they are in the processor's cache and while the
        operating system reads ahead: asked for more at once, or told to fetch all of it, it waits for the disk first.
        """
        assert place.offset is not None  # noqa: S101 - for the type checker; the caller has looked
        row_shape = place.shape[axis + 1 :]
        row_bytes = 2 * int(np.prod(row_shape))
        first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
        at_once = min(span, max(1, _PIECE_BYTES // row_bytes))
        piece = np.empty((at_once, *row_shape), dtype="<f2")
        starts = range(first, first + span, at_once)
        bounds = np.searchsorted(rows, [*starts, first + span])  # rows[bounds[i]:bounds[i + 1]] lie in piece i
        with self.path.open("rb", buffering=0) as file:
            for layer, target in parts:
                for start, begin, end in zip(starts, bounds, bounds[1:], strict=False):
                    read = piece[: min(at_once, first + span - start)]
                    offset = place.offset + (layer * place.shape[axis] + start) * row_bytes
                    _read_at(file.fileno(), offset, read, self.path)
                    target[begin:end] = read if end - begin == len(read) else read[rows[begin:end] - start]

    def _read_through_hdf5(
        self, tap: str, layers: Sequence[int] | None, rows: NDArray[np.int64], out: NDArray[np.float16]
    ) -> None:
        with h5py.File(self.path, "r", locking=False) as file:
            if layers is None:
                out[:] = file[tap][rows]
            else:
                for at, layer in enumerate(layers):
                    out[:, at] = file[tap][layer, rows]


def _place(path: Path, dataset: h5py.Dataset) -> TapPlace:
    if dataset.dtype != np.dtype("<f2"):
        raise ValueError(f"dataset {dataset.name} of {path} holds {dataset.dtype}, expected little-endian float16")
    return TapPlace(dataset.shape, dataset.id.get_offset())


def _read_at(descriptor: int, offset: int, target: NDArray[np.float16], path: Path) -> None:
    rest = target.data.cast("B")
    while rest:
        count = os.preadv(descriptor, [rest], offset)
        if count == 0:
            raise DataError(f"shard {path} ended while it was read, at byte {offset}; run `ltdpipe verify --repair`")
        offset += count
        rest = rest[count:]
