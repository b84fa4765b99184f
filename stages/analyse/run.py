"""The analyse stage: cached features of one corpus view -> transition profiles of reals and of every generator."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.analyse.csv_file import csv_text
from stages.analyse.profiles import Profile, transition_profiles
from storage.atomic import atomic_path, write_text
from storage.errors import DataError
from storage.features import FeatureTable
from storage.manifest import read_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

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
REAL_GROUP = "real"

_METADATA_KEY = b"ltdpipe"
_REMEDY = "run `ltdpipe analyse` again"


@dataclass(frozen=True)
class ProfileFile:
    """A profile file as read: where it came from and its rows (``PROFILE_SCHEMA``), reals first."""

    corpus: str
    view: str
    feature_key: str
    table: pa.Table


def run(*, features: Path, out: Path) -> None:
    """Write the transition profiles of one extracted corpus view, as Parquet and as CSV of the same name.

    Args:
        features: folder of the view, as ``ltdpipe extract`` publishes it.
        out: the Parquet file; the CSV lies beside it with the suffix ``.csv``.

    Raises:
        DataError: the features are missing or damaged, or hold no usable image or no two neighbouring blocks.
    """
    table = FeatureTable.open(features)
    blocks = sorted(table.spec.stored_blocks)
    if not len(table):
        raise DataError(f"{features} holds no usable image; look at its index for what failed")
    if all(after != block + 1 for block, after in pairwise(blocks)):
        raise DataError(f"{features} holds blocks {blocks}, no two of them neighbours; extract at least two")
    groups, numbers = _groups(table.index)
    batches = ((cls, numbers[rows]) for rows, cls in table.batches("cls", blocks=blocks, size=256))
    try:
        profile = transition_profiles(batches, blocks=blocks, groups=len(groups))
    except DataError as error:
        raise DataError(f"{features}: {error}; extract again") from error
    result = _table(profile, groups)
    metadata = {"corpus": table.corpus, "view": features.name, "feature_key": table.key, "images": len(table)}
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
    with atomic_path(out) as partial:
        pq.write_table(result.replace_schema_metadata({_METADATA_KEY: text.encode()}), partial)
    rows = [list(row.values()) for row in result.to_pylist()]
    write_text(out.with_suffix(".csv"), csv_text(PROFILE_SCHEMA.names, rows))


def read_profile(path: Path) -> ProfileFile:
    """Read a profile file.

    Raises:
        DataError: it is missing, damaged, or no profile file.
    """
    table = read_parquet(path, what="profile file", remedy=_REMEDY)
    metadata = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    lacking = [name for name in ("corpus", "view", "feature_key") if name not in metadata]
    lacking += [name for name in PROFILE_SCHEMA.names if name not in table.column_names]
    if lacking:
        raise DataError(f"{path} is no profile file: it lacks {', '.join(lacking)}; {_REMEDY}")
    rows = table.select(PROFILE_SCHEMA.names)
    return ProfileFile(metadata["corpus"], metadata["view"], metadata["feature_key"], rows)


def _groups(index: pa.Table) -> tuple[list[tuple[int | None, str]], NDArray[np.int64]]:
    """Return the (label, name) groups, reals first, and (N,) the group number of every image."""
    labels, generators = index["label"].to_pylist(), index["generator"].to_pylist()
    keys = [_group(label, generator) for label, generator in zip(labels, generators, strict=True)]
    groups = sorted(set(keys), key=lambda key: (key[0] is None, key))
    number = {key: i for i, key in enumerate(groups)}
    return groups, np.array([number[key] for key in keys], dtype=np.int64)


def _group(label: int | None, generator: str | None) -> tuple[int | None, str]:
    if label is None:
        return None, "unlabelled"
    return (1, generator or "unnamed generator") if label else (0, REAL_GROUP)


def _table(profile: Profile, groups: list[tuple[int | None, str]]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for g, (label, name) in enumerate(groups):
        spread = profile.std[g].tolist() if profile.count[g] > 1 else [(None, None)] * len(profile.transitions)
        for t, transition in enumerate(profile.transitions.tolist()):
            (cosine_mean, l2_mean), (cosine_std, l2_std) = profile.mean[g, t].tolist(), spread[t]
            values = (name, label, transition, cosine_mean, cosine_std, l2_mean, l2_std, int(profile.count[g]))
            rows.append(dict(zip(PROFILE_SCHEMA.names, values, strict=True)))
    return pa.Table.from_pylist(rows, schema=PROFILE_SCHEMA)
