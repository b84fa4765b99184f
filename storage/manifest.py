"""The manifest: which image files a corpus has and what is known of each before any is opened.

One Parquet row per image file, sorted by path, the same bytes for the same rows. It is made by ``ltdpipe scan``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import DataError
from storage.parquet import read_parquet, write_parquet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

# Test sets are of the split test or, where a corpus has none, of the next one that it has.
EVALUATION_ORDER = ("test", "val", "train")
# Metadata: how many images of each kind are listed, where not all are
LIMIT_KEY = b"limit"
MISSING_KEY = b"missing"  # metadata: JSON list of the folders of generators and sets that hold no image
# 64-bit offsets: the paths of 22 million images have more than the 2 GiB that a `string` array can.
MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("path", pa.large_string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("generator", pa.large_string()),
        pa.field("split", pa.large_string()),
        pa.field("sets", pa.list_(pa.large_string()), nullable=False),
        pa.field("category", pa.large_string()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


def manifest_table(rows: Iterable[Mapping[str, Any]] | pa.Table) -> pa.Table:
    """Make a manifest from row mappings (keys: the columns of ``MANIFEST_SCHEMA``) or from a table, sorted by path.

    Raises:
        DataError: two rows name the same file.
    """
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=MANIFEST_SCHEMA)
    paths = table["path"]
    if pc.all(pc.less(paths[:-1], paths[1:]), min_count=0).as_py():
        return table
    table = table.take(pc.sort_indices(paths))
    paths = table["path"].combine_chunks()
    twins = paths[1:].filter(pc.equal(paths[1:], paths[:-1]))
    if len(twins):
        twin = twins[0].as_py()
        raise DataError(f"the manifest lists {twin!r} twice; list each image once and name its sets in `sets`")
    return table


def evaluation_rows(table: pa.Table) -> NDArray[np.int64]:
    """Return the numbers, ascending, of the rows of the split that test sets are made of; of all where there is none.

    Args:
        table: a manifest or index table.
    """
    splits = pc.unique(table["split"]).to_pylist()
    split = next((split for split in EVALUATION_ORDER if split in splits), None)
    if split is None:
        return np.arange(len(table))
    rows: NDArray[np.int64] = np.flatnonzero(pc.fill_null(pc.equal(table["split"], split), False).to_numpy())
    return rows


def write_manifest(table: pa.Table, path: Path) -> None:
    """Write a manifest atomically."""
    write_parquet(table, path)


def read_manifest(path: Path) -> pa.Table:
    """Read a manifest.

    Raises:
        DataError: it does not exist, is no Parquet file, has other columns, or lists a file twice.
    """
    table = read_parquet(path, what="manifest", remedy="make it with `ltdpipe scan`")
    missing = [name for name in MANIFEST_SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path} is no manifest: it lacks the column(s) {', '.join(missing)}; `ltdpipe scan` makes one")
    return manifest_table(table.select(MANIFEST_SCHEMA.names))


def folders_without_images(path: Path) -> list[str]:
    """Return the folders of generators and sets that held no image at the scan; none without a manifest."""
    metadata = read_manifest(path).schema.metadata if path.exists() else None
    found: list[str] = json.loads((metadata or {}).get(MISSING_KEY, b"[]"))
    return found


def changes(manifest: pa.Table, now: pa.Table) -> tuple[int, int, int]:
    """Return how many images are new, gone, and of another size or time in ``now``, a later scan of the same corpus."""
    columns = ["path", "size_bytes", "mtime_ns"]
    at = pc.index_in(now["path"], value_set=manifest["path"])
    same = now.select(columns).filter(pc.is_valid(at))
    before = manifest.select(columns).take(at.drop_null())
    touched = pc.or_(*(pc.not_equal(same[name], before[name]) for name in columns[1:]))
    return at.null_count, len(manifest) - len(same), pc.sum(touched, min_count=0).as_py()
