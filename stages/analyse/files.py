"""The files of the analyse stage: transition profiles, discrimination of windows, a projection in two dimensions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage.errors import DataError
from storage.parquet import read_parquet, write_parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PROFILE_SCHEMA = pa.schema(
    [
        pa.field("group", pa.string()),
        pa.field("label", pa.int8()),
        pa.field("transition", pa.int32()),
        pa.field("cosine_mean", pa.float64()),
        pa.field("cosine_std", pa.float64()),
        pa.field("l2_mean", pa.float64()),
        pa.field("l2_std", pa.float64()),
        pa.field("n", pa.int64()),
    ]
)
WINDOW_SCHEMA = pa.schema(
    [
        pa.field("generator", pa.string()),  # null: all generators together
        pa.field("start", pa.int32()),
        pa.field("blocks", pa.int32()),
        pa.field("auc_cosine", pa.float64()),
        pa.field("auc_l2", pa.float64()),
        pa.field("n_real", pa.int64()),
        pa.field("n_fake", pa.int64()),
    ]
)
PROJECTION_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("group", pa.string()),
        pa.field("label", pa.int8()),
        pa.field("raw_x", pa.float64()),
        pa.field("raw_y", pa.float64()),
        pa.field("ltd_x", pa.float64()),
        pa.field("ltd_y", pa.float64()),
    ]
)

_METADATA_KEY = b"ltdpipe"
_REMEDY = "run `ltdpipe analyse` again"
_IDENTITY = ("corpus", "view", "feature_key")


@dataclass(frozen=True)
class AnalysisFile:
    """A file of the analyse stage as read: where it came from, its rows, and all that its metadata holds."""

    corpus: str
    view: str
    feature_key: str
    table: pa.Table
    facts: Mapping[str, Any]


def windows_path(profile: Path) -> Path:
    """Where the windows of the profile file ``<corpus>.parquet`` lie."""
    return profile.with_name(f"{profile.stem}.windows.parquet")


def projection_path(profile: Path) -> Path:
    """Where the projection of the profile file ``<corpus>.parquet`` lies."""
    return profile.with_name(f"{profile.stem}.projection.parquet")


def write_analysis(path: Path, rows: Sequence[Sequence[Any]], schema: pa.Schema, facts: Mapping[str, Any]) -> None:
    """Write a file atomically.

    Args:
        path: the file.
        rows: values of the schema's columns.
        schema: one of the above.
        facts: the metadata; at least corpus, view and feature_key.
    """
    text = json.dumps(dict(facts), sort_keys=True, separators=(",", ":"), allow_nan=False)
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)
    write_parquet(table.replace_schema_metadata({_METADATA_KEY: text.encode()}), path)


def read_analysis(path: Path, schema: pa.Schema) -> AnalysisFile:
    """Read a file of one of the schemas above.

    Raises:
        DataError: it is missing, damaged, or has not these columns and this metadata.
    """
    table = read_parquet(path, what="analysis", remedy=_REMEDY)
    facts = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    lacking = [name for name in _IDENTITY if name not in facts]
    lacking += [name for name in schema.names if name not in table.column_names]
    if lacking:
        raise DataError(f"{path} is no such file of `ltdpipe analyse`: it lacks {', '.join(lacking)}; {_REMEDY}")
    return AnalysisFile(facts["corpus"], facts["view"], facts["feature_key"], table.select(schema.names), facts)
