"""Features as Parquet, for tools that read no HDF5: a file for each shard, a column for each tap and block."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.atomic import PARTIAL_SUFFIX, atomic_path, explained, remove
from storage.errors import DataError
from storage.spec import image_axis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.features import FeatureTable

_OF_SHARDS = ["status", "error", "shard", "row"]  # columns of the index that mean nothing beside exported features
_REPEATING = ["label", "generator", "split", "category", "format", "mode"]  # a dictionary of features would only cost
_METADATA_KEY = b"ltdpipe"


def export_features(table: FeatureTable, out: Path, *, taps: Sequence[str], blocks: Sequence[int]) -> Iterator[int]:
    """Write the usable images of a view to ``out/shard-00000.parquet`` and so on; yield the images in each file done.

    The columns are the index's, and ``<tap>_<block>`` for each block (``embedding`` has none): lists of float16 of a
    fixed size. Each file is written whole or not at all, and one that holds the same already is kept. What an earlier
    export left in ``out`` and this one does not write is removed.

    Args:
        table: the view.
        out: a folder of its own.
        taps: some of ``table.spec.taps``.
        blocks: 0-based block numbers.

    Raises:
        DataError: a tap or a block was not extracted, a shard is damaged, or ``out`` holds files of another origin.
        ResourceError: ``out`` cannot be written to.
    """
    schema = _columns(table, np.empty(0, np.int64), taps, blocks).schema
    rows_of = {
        out / f"{shard.removesuffix('.h5')}.parquet": np.flatnonzero(pc.equal(table.index["shard"], shard))
        for shard in table.index["shard"].unique().to_pylist()
    }
    with explained(out):
        found = {path: _schema(path) for path in out.iterdir()} if out.exists() else {}
    foreign = sorted(path.name for path, written in found.items() if written is None)
    if foreign:
        raise DataError(f"{out} holds files of another origin ({', '.join(foreign[:3])}); choose an empty folder")
    remove(*(found.keys() - rows_of.keys()))
    for path, rows in rows_of.items():
        index = table.index.take(rows).drop_columns(_OF_SHARDS)
        written = found.get(path)
        same = written is not None and (written.names, written.metadata) == (schema.names, schema.metadata)
        if not same or pq.read_table(path, columns=index.column_names).to_pylist() != index.to_pylist():
            part = _columns(table, rows, taps, blocks)
            with atomic_path(path) as partial:
                pq.write_table(part, partial, use_dictionary=_REPEATING)
        yield len(rows)


def _columns(table: FeatureTable, rows: NDArray[np.int64], taps: Sequence[str], blocks: Sequence[int]) -> pa.Table:
    """Return the index's columns and the features of some rows."""
    part = table.index.take(rows).drop_columns(_OF_SHARDS)
    for tap in taps:
        values = table.read(tap, blocks=blocks, rows=rows)  # (N, L', D), or (N, E)
        vectors = {tap: values}
        if image_axis(tap) == 1:
            vectors = {f"{tap}_{block}": values[:, at] for at, block in enumerate(blocks)}
        for name, each in vectors.items():
            part = part.append_column(name, pa.FixedSizeListArray.from_arrays(pa.array(each.ravel()), each.shape[1]))
    about = {"corpus": table.corpus, "key": table.key, "spec": json.loads(table.spec.to_json())}
    return part.replace_schema_metadata({_METADATA_KEY: json.dumps(about, sort_keys=True).encode()})


def _schema(path: Path) -> pa.Schema | None:
    """Return the schema of a file of an export, an empty one of a partial file, and None of any other file."""
    if path.name.endswith(PARTIAL_SUFFIX):
        return pa.schema([])
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return None
    return schema if _METADATA_KEY in (schema.metadata or {}) else None
