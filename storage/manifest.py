"""The manifest: which image files a corpus has and what is known of each before any is opened.

One Parquet row per image file, sorted by path, the same bytes for the same rows. It is made by ``ltdpipe scan``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.atomic import atomic_path
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("generator", pa.string()),
        pa.field("split", pa.string()),
        pa.field("sets", pa.list_(pa.string()), nullable=False),
        pa.field("category", pa.string()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


def manifest_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Make a manifest from row mappings (keys: the columns of ``MANIFEST_SCHEMA``), sorted by path.

    Raises:
        DataError: two rows name the same file.
    """
    table = pa.Table.from_pylist(list(rows), schema=MANIFEST_SCHEMA)
    table = table.take(pc.sort_indices(table["path"]))
    paths = table["path"].to_pylist()
    twin = next((a for a, b in itertools.pairwise(paths) if a == b), None)
    if twin is not None:
        raise DataError(f"the manifest lists {twin!r} twice; list each image once and name its sets in `sets`")
    return table


def write_manifest(table: pa.Table, path: Path) -> None:
    """Write a manifest atomically."""
    with atomic_path(path) as partial:
        pq.write_table(table, partial)


def read_manifest(path: Path) -> pa.Table:
    """Read a manifest.

    Raises:
        DataError: it does not exist, is no Parquet file, or has other columns.
    """
    table = read_parquet(path, what="manifest", remedy="make it with `ltdpipe scan`")
    missing = [name for name in MANIFEST_SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"{path} is no manifest: it lacks the column(s) {', '.join(missing)}; `ltdpipe scan` makes one")
    return table.select(MANIFEST_SCHEMA.names)


def read_parquet(path: Path, *, what: str, remedy: str) -> pa.Table:
    """Read a Parquet file of ours, or say which file is missing or damaged and what to do."""
    try:
        return pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} does not exist; {remedy}") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{what} {path} cannot be read ({str(error).splitlines()[0]}); {remedy}") from error
