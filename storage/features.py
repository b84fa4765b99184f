"""Reading extracted features: any subset of taps, blocks and rows, in one piece or in batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import DataError
from storage.index import INDEX_NAME, read_index, rows_of_set, shard_fault
from storage.shard import Shard
from storage.spec import image_axis
from storage.threads import at_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.index import ShardRecord
    from storage.spec import FeatureSpec


@dataclass(frozen=True)
class FeatureTable:
    """One corpus in one view, opened for reading.

    Attributes:
        directory: where it lies.
        corpus: name of the corpus.
        spec: the settings that the features were made with.
        index: rows of the usable images (columns of ``storage.index.INDEX_SCHEMA``), sorted by path; row i of
            every array read here belongs to row i of it.
        failed: rows of the images that could not be read, with their reason in ``error``.
    """

    directory: Path
    corpus: str
    spec: FeatureSpec
    index: pa.Table
    failed: pa.Table
    _records: tuple[ShardRecord, ...]
    _shard_of: NDArray[np.integer]  # (N,) position in _records
    _row_of: NDArray[np.int64]  # (N,) row in that shard
    _opened: dict[int, Shard] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, directory: Path) -> FeatureTable:
        """Open ``directory`` (one view of an extracted corpus); no feature is read yet.

        Raises:
            DataError: the index or a shard is missing, damaged, or not what the index states. A shard that changed
                since it was last found sound is hashed.
        """
        index = read_index(directory / INDEX_NAME)
        paths = [directory / record.name for record in index.shards]
        for path, fault in zip(paths, at_once(shard_fault, paths, index.shards), strict=True):
            if fault is not None:
                raise DataError(
                    f"shard {path} {fault}; `ltdpipe verify --repair` restores it, or run the "
                    "`ltdpipe extract` that made it again"
                )
        ok = pc.equal(index.table["status"], "ok")
        failed = index.table.filter(pc.invert(ok))
        usable = index.table.filter(ok) if len(failed) else index.table
        names = pa.array([record.name for record in index.shards], pa.large_string())
        shard_of = pc.fill_null(pc.index_in(usable["shard"], value_set=names), -1).to_numpy()
        row_of = pc.fill_null(usable["row"], -1).to_numpy().astype(np.int64)
        rows = np.array([record.rows for record in index.shards] + [0])
        astray = np.flatnonzero((shard_of < 0) | (row_of < 0) | (row_of >= rows[shard_of]))
        if len(astray):
            path = usable["path"][int(astray[0])].as_py()
            raise DataError(
                f"index {directory / INDEX_NAME} is damaged: it places {path!r} outside the shards it lists; "
                "run `ltdpipe extract` again, it rebuilds the index"
            )
        return cls(directory, index.corpus, index.spec, usable, failed, index.shards, shard_of, row_of)

    @property
    def key(self) -> str:
        """The feature key; only features of equal keys may be mixed."""
        return self.spec.key

    def __len__(self) -> int:
        """Return N, the number of usable images."""
        return len(self.index)

    def rows_of_set(self, name: str) -> NDArray[np.int64]:
        """Return the rows, ascending, of the images that belong to the test set ``name``."""
        return rows_of_set(self.index, name)

    def read(
        self, tap: str = "cls", *, blocks: Sequence[int] | None = None, rows: NDArray[np.integer] | slice | None = None
    ) -> NDArray[np.float16]:
        """Read features into memory; ``torch.from_numpy`` takes them without a copy.

        Args:
            tap: one of ``spec.taps``.
            blocks: 0-based block numbers, in the wanted order; None for all stored ones. Ignored by a tap without any.
            rows: which rows of ``index``, in the wanted order, repeated or not; None for all.

        Returns:
            As ``FeatureSpec.tap_shape`` has it, images first: (N, L', D) for "cls", (N, E) for "embedding".

        Raises:
            DataError: the tap or a block was not extracted, or a shard is damaged.
        """
        layers = self._layers(tap, blocks)
        chosen = np.arange(len(self))[slice(None) if rows is None else rows]
        inner = self.spec.tap_shape(tap, 0)[image_axis(tap) + 1 :]
        out = np.empty((len(chosen), *(() if layers is None else (len(layers),)), *inner), dtype=np.float16)
        for number, positions in self._by_shard(chosen):
            wanted = self._row_of[chosen[positions]]  # ascending
            found, back = np.unique(wanted, return_inverse=True)
            shard = self._shard(number)
            first = int(positions[0])
            if len(found) == len(wanted) and np.array_equal(positions, np.arange(first, first + len(positions))):
                shard.read(tap, layers, found, out[first : first + len(positions)])
            else:
                part = np.empty((len(found), *out.shape[1:]), dtype=np.float16)
                shard.read(tap, layers, found, part)
                out[positions] = part[back]
        return out

    def batches(
        self, tap: str = "cls", *, blocks: Sequence[int] | None = None, size: int = 1024
    ) -> Iterator[tuple[slice, NDArray[np.float16]]]:
        """Yield (row slice, features) over all rows in index order, ``size`` rows at a time."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.read(tap, blocks=blocks, rows=rows)

    def _by_shard(self, chosen: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield (shard number, positions in ``chosen`` of its rows, in the shard's order)."""
        if not len(chosen):
            return
        shard_of = self._shard_of[chosen]
        order = np.lexsort((self._row_of[chosen], shard_of))
        for positions in np.split(order, np.flatnonzero(np.diff(shard_of[order])) + 1):
            yield int(shard_of[positions[0]]), positions

    def _shard(self, number: int) -> Shard:
        if number not in self._opened:
            record = self._records[number]
            shard = Shard.open(self.directory / record.name)
            shard.check(self.spec, record.rows)
            self._opened[number] = shard
        return self._opened[number]

    def _layers(self, tap: str, blocks: Sequence[int] | None) -> list[int] | None:
        if tap not in self.spec.taps:
            raise DataError(
                f"{self.directory} has no tap {tap!r}, only {', '.join(self.spec.taps)}; "
                "add it to `extract.taps` and extract again"
            )
        if image_axis(tap) == 0:
            return None
        stored = {block: layer for layer, block in enumerate(self.spec.stored_blocks)}
        wanted = self.spec.stored_blocks if blocks is None else blocks
        missing = [block for block in wanted if block not in stored]
        if missing:
            raise DataError(f"{self.directory} lacks block(s) {missing}; it holds {list(stored)}")
        return [stored[block] for block in wanted]
