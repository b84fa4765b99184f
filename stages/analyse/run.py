"""The analyse stage: cached features of one corpus view -> how the CLS token moves, and what that tells."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.analyse.files import (
    PROFILE_SCHEMA,
    PROJECTION_SCHEMA,
    WINDOW_SCHEMA,
    projection_path,
    windows_path,
    write_analysis,
)
from stages.analyse.profiles import Profile, transition_profiles, window_aucs
from stages.analyse.projection import project
from storage.atomic import all_or_none
from storage.csv_text import csv_text
from storage.errors import DataError
from storage.features import FeatureTable
from storage.manifest import evaluation_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

REAL_GROUP = "real"

_BATCH = 256
_Group = tuple[int | None, str]


def run(*, features: Path, out: Path) -> None:
    """Write what the cached CLS tokens of one extracted corpus view show; tokens are read a batch at a time.

    Where the corpus has several splits, the images of the one that test sets are made of are read, and no others.

    Kept in memory are two numbers an image and transition, and the tokens of a sample for the projection.

    Args:
        features: folder of the view, as ``ltdpipe extract`` publishes it.
        out: the Parquet file of the profiles, ``<corpus>.parquet``. Beside it lie the same rows as ``.csv``,
            ``<corpus>.windows.parquet`` and ``<corpus>.projection.parquet``.

    Raises:
        DataError: the features are missing or damaged, or hold no usable image or no two neighbouring blocks.
    """
    table = FeatureTable.open(features)
    blocks = sorted(table.spec.stored_blocks)
    if not len(table):
        raise DataError(f"{features} holds no usable image; look at its index for what failed")
    if all(after != block + 1 for block, after in pairwise(blocks)):
        raise DataError(f"{features} holds blocks {blocks}, no two of them neighbours; extract at least two")
    tested = evaluation_rows(table.index)
    groups, numbers = _groups(table.index.take(tested))
    kept: list[NDArray[np.float32]] = []
    batches = (
        (table.read("cls", blocks=blocks, rows=tested[rows]), numbers[rows])
        for rows in np.split(np.arange(len(tested)), range(_BATCH, len(tested), _BATCH))
    )
    try:
        profile = transition_profiles(
            batches, blocks=blocks, groups=len(groups), on_moves=lambda moves: kept.append(moves.astype(np.float32))
        )
    except DataError as error:
        raise DataError(f"{features}: {error}; extract again") from error
    facts = {"corpus": table.corpus, "view": features.name, "feature_key": table.key, "images": len(tested)}
    rows = list(_profile_rows(profile, groups))
    windows = list(_window_rows(np.concatenate(kept), profile.transitions.tolist(), groups, numbers))
    points, explained = _projection(table, groups, tested, numbers)
    with all_or_none() as partial:
        write_analysis(partial(out), rows, PROFILE_SCHEMA, facts)
        partial(out.with_suffix(".csv")).write_text(csv_text(PROFILE_SCHEMA.names, rows), encoding="utf-8", newline="")
        write_analysis(partial(windows_path(out)), windows, WINDOW_SCHEMA, facts)
        write_analysis(partial(projection_path(out)), points, PROJECTION_SCHEMA, {**facts, **explained})


def _groups(index: pa.Table) -> tuple[list[_Group], NDArray[np.int64]]:
    """Return the (label, name) groups, reals first, and (N,) the group number of every image."""
    labels, generators = index["label"].to_pylist(), index["generator"].to_pylist()
    keys = [_group(label, generator) for label, generator in zip(labels, generators, strict=True)]
    groups = sorted(set(keys), key=lambda key: (key[0] is None, key))
    number = {key: i for i, key in enumerate(groups)}
    return groups, np.array([number[key] for key in keys], dtype=np.int64)


def _group(label: int | None, generator: str | None) -> _Group:
    if label is None:
        return None, "unlabelled"
    return (1, generator or "unnamed generator") if label else (0, REAL_GROUP)


def _profile_rows(profile: Profile, groups: list[_Group]) -> Iterator[tuple[Any, ...]]:
    for g, (label, name) in enumerate(groups):
        spread = profile.std[g].tolist() if profile.count[g] > 1 else [(None, None)] * len(profile.transitions)
        for t, transition in enumerate(profile.transitions.tolist()):
            (cosine_mean, l2_mean), (cosine_std, l2_std) = profile.mean[g, t].tolist(), spread[t]
            yield name, label, transition, cosine_mean, cosine_std, l2_mean, l2_std, int(profile.count[g])


def _window_rows(
    moves: NDArray[np.float32], transitions: list[int], groups: list[_Group], numbers: NDArray[np.int64]
) -> Iterator[tuple[Any, ...]]:
    """All generators together first, then each; nothing where a class is missing."""
    label = np.array([-1 if label is None else label for label, _ in groups], dtype=np.int64)[numbers]
    real = label == 0
    fakes: list[tuple[str | None, NDArray[np.bool_]]] = [(None, label == 1)]
    fakes += [(name, numbers == g) for g, (kind, name) in enumerate(groups) if kind == 1]
    for generator, fake in fakes:
        if real.any() and fake.any():
            for of_window in window_aucs(moves, transitions, real, fake):
                yield generator, *of_window, int(real.sum()), int(fake.sum())


def _projection(
    table: FeatureTable, groups: list[_Group], tested: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Return the rows of the projection's file and what its metadata says of it; nothing where there is none."""
    projection = project(table, tested, numbers)
    rows: list[tuple[Any, ...]] = []
    facts: dict[str, Any] = {}
    if projection is not None:
        explained = dict(zip(("raw", "ltd"), projection.explained.tolist(), strict=True))
        facts = {"blocks": list(projection.blocks), "explained": explained}
        paths = table.index["path"].take(tested[projection.rows]).to_pylist()
        for path, group, (raw, ltd) in zip(paths, numbers[projection.rows], projection.points.tolist(), strict=True):
            label, name = groups[group]
            rows.append((path, name, label, *raw, *ltd))
    return rows, facts
