"""Features as Parquet, for tools that read no HDF5: a file for each shard, a column for each tap and block."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.atomic import PARTIAL_SUFFIX, atomic_path, remove
from storage.published import refuse_foreign
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
    fixed size. Each file is written whole or not at all. What an earlier export left in ``out`` is replaced.

    Args:
        table: the view.
        out: a folder of its own.
        taps: some of ``table.spec.taps``.
        blocks: 0-based block numbers.

    Raises:
        DataError: a tap or a block was not extracted, a shard is damaged, or ``out`` holds files of another origin.
        ResourceError: ``out`` cannot be written to.
    """
    _columns(table, np.empty(0, np.int64), taps, blocks)  # refuses what was not extracted
    rows_of = {
        out / f"{shard.removesuffix('.h5')}.parquet": np.flatnonzero(pc.equal(table.index["shard"], shard))
        for shard in table.index["shard"].unique().to_pylist()
    }
    refuse_foreign(out, _is_export)
    remove(*(path for path in out.glob("*") if path not in rows_of))
    for path, rows in rows_of.items():
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


def _is_export(path: Path) -> bool:
    """Tell whether a file is of an export, or a partial one."""
    try:
        return path.name.endswith(PARTIAL_SUFFIX) or _METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False
