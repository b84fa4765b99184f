"""Reading extracted features: any subset of taps, blocks and rows, mapped from the shards, copied once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import DataError
from storage.index import INDEX_NAME, read_index
from storage.shard import map_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

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
    _shards: dict[str, dict[str, NDArray[np.float16]]]

    @classmethod
    def open(cls, directory: Path) -> FeatureTable:
        """Open ``directory`` (one view of an extracted corpus); shards are mapped, nothing is read yet.

        Raises:
            DataError: the index or a shard is missing, has another size than the index states, or is damaged.
        """
        index = read_index(directory / INDEX_NAME)
        shards = {}
        for record in index.shards:
            path = directory / record.name
            size = path.stat().st_size if path.exists() else None
            if size != record.size_bytes:
                state = "is missing" if size is None else f"has {size} bytes, the index says {record.size_bytes}"
                raise DataError(f"shard {path} {state}; run `ltdpipe extract` again to restore it")
            shards[record.name] = map_shard(path)
        usable = pc.equal(index.table["status"], "ok")
        return cls(
            directory=directory,
            corpus=index.corpus,
            spec=index.spec,
            index=index.table.filter(usable),
            failed=index.table.filter(pc.invert(usable)),
            _shards=shards,
        )

    @property
    def key(self) -> str:
        """The feature key; only features of equal keys may be mixed."""
        return self.spec.key

    def __len__(self) -> int:
        """Return N, the number of usable images."""
        return len(self.index)

    def read(
        self, tap: str = "cls", *, blocks: Sequence[int] | None = None, rows: NDArray[np.integer] | slice | None = None
    ) -> NDArray[np.float16]:
        """Read features into memory.

        Args:
            tap: "cls" or "embedding".
            blocks: 0-based block numbers, in the wanted order; None for all stored ones. Ignored for the embedding.
            rows: which rows of ``index``, in the wanted order; None for all.

        Returns:
            (N, L', D) for a tap over blocks, (N, E) for the embedding.

        Raises:
            DataError: the tap or a block was not extracted.
        """
        chosen = np.arange(len(self))[slice(None) if rows is None else rows]
        layers, width = self._layers(tap, blocks)
        shape = (len(chosen), width) if layers is None else (len(chosen), len(layers), width)
        out = np.empty(shape, dtype=np.float16)
        names = self.index["shard"].combine_chunks().dictionary_encode()
        shard_of = names.indices.to_numpy()[chosen]
        row_of = self.index["row"].to_numpy()[chosen]
        for number in np.unique(shard_of):
            here = np.flatnonzero(shard_of == number)
            array = self._shards[names.dictionary[int(number)].as_py()][tap]
            if layers is None:
                out[here] = array[row_of[here]]
            else:
                for position, layer in enumerate(layers):
                    out[here, position] = array[layer, row_of[here]]
        return out

    def batches(
        self, tap: str = "cls", *, blocks: Sequence[int] | None = None, size: int = 1024
    ) -> Iterator[tuple[slice, NDArray[np.float16]]]:
        """Yield (row slice, features) over all rows in index order, ``size`` rows at a time."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.read(tap, blocks=blocks, rows=rows)

    def _layers(self, tap: str, blocks: Sequence[int] | None) -> tuple[list[int] | None, int]:
        if tap not in self.spec.taps:
            raise DataError(
                f"{self.directory} has no tap {tap!r}, only {', '.join(self.spec.taps)}; "
                "add it to `extract.taps` and extract again"
            )
        _, width = self.spec.tap_shape(tap)
        if tap == "embedding":
            return None, width
        stored = {block: layer for layer, block in enumerate(self.spec.stored_blocks)}
        wanted = self.spec.stored_blocks if blocks is None else blocks
        missing = [block for block in wanted if block not in stored]
        if missing:
            raise DataError(f"{self.directory} lacks block(s) {missing}; it holds {list(stored)}")
        return [stored[block] for block in wanted], width
