"""What a stopped run had done of a shard: ``unfinished-NUMBER-IMAGES.h5`` with its first images, and a sidecar."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from storage.atomic import remove
from storage.errors import DataError
from storage.index import IDENTITY, read_sidecar, shard_fault, sidecars
from storage.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from storage.corpus_folder import CorpusFolder

    # tap -> features of the first images of a shard (no tap where all of them failed), and the rows of these images
    Unfinished = tuple[Mapping[str, NDArray[np.float16]], list[dict[str, Any]]]


def keep(folder: CorpusFolder, number: int, arrays: Mapping[str, NDArray[Any]], rows: Sequence[dict[str, Any]]) -> None:
    """Keep what is done of shard ``number``: features and rows of its first images, as ``CorpusFolder.add`` takes."""
    older = list(folder.directory.glob(f"unfinished-{number:05d}-*"))
    shard = folder.directory / f"unfinished-{number:05d}-{len(rows):06d}.h5"
    folder.write(shard, arrays, rows)
    remove(*(path for path in older if path.stem != shard.stem))


def read(folder: CorpusFolder, shards: Mapping[int, pa.Table]) -> dict[int, Unfinished]:
    """Return what is kept of unfinished shards, by their numbers.

    Args:
        folder: of one view.
        shards: number of a shard -> the images that it is to hold; what is kept of others is passed over.
    """
    kept: dict[int, Unfinished] = {}
    for sidecar in sidecars(folder.directory, "unfinished"):  # the longest of a shard comes last
        shard, number = sidecar.with_suffix(".h5"), int(sidecar.stem.split("-")[1])
        with suppress(DataError):  # damaged: as if nothing were kept
            rows, record, spec = read_sidecar(sidecar)
            images = shards.get(number, rows.slice(0, 0)).select(IDENTITY).slice(0, len(rows))
            fits = spec.key == folder.spec.key and rows.select(IDENTITY).equals(images)
            if fits and not (record.rows and shard_fault(shard, record)):
                taps = {tap: Shard.open(shard).map(tap) for tap in spec.taps} if record.rows else {}
                kept[number] = taps, rows.to_pylist()
    return kept


def count(folder: CorpusFolder) -> int:
    """Count the images that are kept of unfinished shards, by the names of their files alone."""
    kept: dict[str, int] = {}
    for sidecar in sidecars(folder.directory, "unfinished"):  # the longest of a shard comes last
        _, shard, images = sidecar.stem.split("-")
        kept[shard] = int(images)
    return sum(kept.values())


def drop(folder: CorpusFolder) -> None:
    """Drop what is kept of unfinished shards."""
    remove(*folder.directory.glob("unfinished-*"))
