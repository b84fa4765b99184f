"""The files of the analyse stage: transition profiles, separation by windows, a projection in two dimensions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from storage.errors import DataError
from storage.parquet import read_parquet, write_parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_GROUP = {"group": pa.string(), "label": pa.int8(), "transition": pa.int32()}
_MOVES = dict.fromkeys(("cosine_mean", "cosine_std", "l2_mean", "l2_std"), pa.float64())
_ATTENTION = dict.fromkeys(("attention_mean", "attention_std"), pa.float64())
PROFILE_SCHEMA = pa.schema({**_GROUP, **_MOVES, "n": pa.int64()})
ATTENTION_SCHEMA = pa.schema({**_GROUP, **_MOVES, **_ATTENTION, "n": pa.int64()})  # where that tap was extracted
WINDOW_SCHEMA = pa.schema(
    {
        "generator": pa.string(),  # null: all generators together
        "start": pa.int32(),
        "blocks": pa.int32(),
        "auc_cosine": pa.float64(),
        "auc_l2": pa.float64(),
        "n_real": pa.int64(),
        "n_fake": pa.int64(),
    }
)
_POINTS = dict.fromkeys(("raw_x", "raw_y", "ltd_x", "ltd_y"), pa.float64())
PROJECTION_SCHEMA = pa.schema({"path": pa.string(), "group": pa.string(), "label": pa.int8(), **_POINTS})

_METADATA_KEY = b"ltdpipe"
_REMEDY = "run `ltdpipe analyse` again"


class AnalysisFile(NamedTuple):
    """A file of the analyse stage as read: what it is about, its rows, and all that its metadata holds."""

    corpus: str
    view: str
    feature_key: str
    table: pa.Table
    facts: Mapping[str, Any]


def windows_path(profile: Path) -> Path:
    """Return the windows file beside the profile file ``<corpus>.parquet``."""
    return profile.with_suffix(".windows.parquet")


def projection_path(profile: Path) -> Path:
    """Return the projection file beside the profile file ``<corpus>.parquet``."""
    return profile.with_suffix(".projection.parquet")


def write_analysis(path: Path, rows: Sequence[Sequence[Any]], schema: pa.Schema, facts: Mapping[str, Any]) -> None:
    """Write a file atomically: rows of one of the schemas above, and metadata with corpus, view and feature_key."""
    text = json.dumps(dict(facts), sort_keys=True, separators=(",", ":"), allow_nan=False)
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)
    write_parquet(table.replace_schema_metadata({_METADATA_KEY: text.encode()}), path)


def read_analysis(path: Path, schema: pa.Schema) -> AnalysisFile:
    """Read a file of one of the schemas above; columns and facts that are not known are passed over.

    Raises:
        DataError: it is missing or damaged, or lacks a column or a fact.
    """
    table = read_parquet(path, what="analysis", remedy=_REMEDY)
    facts = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    lacking = [name for name in ("corpus", "view", "feature_key") if name not in facts]
    lacking += [name for name in schema.names if name not in table.column_names]
    if lacking:
        raise DataError(f"{path} is no such file of `ltdpipe analyse`: it lacks {', '.join(lacking)}; {_REMEDY}")
    known = [*schema.names, *(name for name in _ATTENTION if name in table.column_names)]
    return AnalysisFile(facts["corpus"], facts["view"], facts["feature_key"], table.select(known), facts)
