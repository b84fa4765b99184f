"""The analyse stage: cached features of one corpus view -> how the CLS token moves, and what that separates."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.analyse.files import (
    ATTENTION_SCHEMA,
    PROFILE_SCHEMA,
    PROJECTION_SCHEMA,
    WINDOW_SCHEMA,
    projection_path,
    windows_path,
    write_analysis,
)
from stages.analyse.transitions import divergences, neighbouring, principal_components, transitions, window_aucs
from stages.heads.settings import LtdSettings
from storage.atomic import all_or_none
from storage.csv_text import csv_text
from storage.errors import DataError
from storage.features import FeatureTable
from storage.manifest import evaluation_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

SAMPLE = 1200  # images in the projection
_BATCH = 256
_Group = tuple[int | None, str]  # label, name


def run(*, features: Path, out: Path) -> None:
    """Write what the cached CLS tokens of one extracted corpus view show.

    Where the corpus has several splits, only images of the one that test sets are made of are read. Tokens are read a
    batch at a time; two numbers per image and transition stay in memory, and the tokens of the projection's sample.

    Args:
        features: folder of the view, as ``ltdpipe extract`` publishes it.
        out: the Parquet file of the profiles, ``<corpus>.parquet``. Beside it lie the same rows as ``.csv``,
            ``<corpus>.windows.parquet`` and ``<corpus>.projection.parquet``.

    Raises:
        DataError: the features are missing or damaged, or hold no usable image or no two neighbouring blocks.
    """
    table = FeatureTable.open(features)
    blocks = sorted(table.spec.stored_blocks)
    starts = neighbouring(blocks)
    if not len(table):
        raise DataError(f"{features} holds no usable image; look at its index for what failed")
    if not starts:
        raise DataError(f"{features} holds blocks {blocks}, no two of them neighbours; extract at least two")
    tested = evaluation_rows(table.index)
    groups, numbers = _groups(table.index.take(tested))
    schema = ATTENTION_SCHEMA if "attention" in table.spec.taps else PROFILE_SCHEMA
    moved = np.empty((len(tested), len(starts), 3 if schema is ATTENTION_SCHEMA else 2))
    try:
        for start in range(0, len(tested), _BATCH):
            rows, part = tested[start : start + _BATCH], moved[start : start + _BATCH]
            part[:, :, :2] = transitions(table.read("cls", blocks=blocks, rows=rows), blocks, first_row=start)
            if schema is ATTENTION_SCHEMA:
                part[:, :, 2] = divergences(table.read("attention", blocks=blocks, rows=rows), blocks)
    except DataError as error:
        raise DataError(f"{features}: {error}; extract again") from error
    facts = {"corpus": table.corpus, "view": features.name, "feature_key": table.key, "images": len(tested)}
    profile = list(_profile_rows(moved, starts, groups, numbers))
    windows = list(_window_rows(moved[:, :, :2].astype(np.float32), starts, groups, numbers))
    points, explained = _projection(table, groups, tested, numbers)
    with all_or_none() as partial:
        write_analysis(partial(out), profile, schema, facts)
        text = csv_text(schema.names, profile)
        partial(out.with_suffix(".csv")).write_text(text, encoding="utf-8", newline="")
        write_analysis(partial(windows_path(out)), windows, WINDOW_SCHEMA, facts)
        write_analysis(partial(projection_path(out)), points, PROJECTION_SCHEMA, {**facts, **explained})


def sample_rows(groups: NDArray[np.int64], size: int = SAMPLE) -> NDArray[np.int64]:
    """Return at most ``size`` row numbers, spread evenly over groups (N,) and over the rows of each."""
    of_groups = [np.flatnonzero(groups == number) for number in np.unique(groups)]
    share = max(1, size // max(len(of_groups), 1))
    chosen = [rows[np.linspace(0, len(rows) - 1, min(share, len(rows))).round().astype(np.int64)] for rows in of_groups]
    return np.sort(np.concatenate(chosen))


def projected_blocks(stored: Sequence[int], blocks: int) -> list[int]:
    """Return the stored blocks among the method's default candidates, or all stored ones when fewer than two are."""
    first, last = LtdSettings().candidates_for(blocks)
    candidates = [block for block in sorted(stored) if first <= block <= last]
    return candidates if len(candidates) > 1 else sorted(stored)


def _groups(index: pa.Table) -> tuple[list[_Group], NDArray[np.int64]]:
    """Return the groups, reals first and unlabelled images last, and (N,) the group number of every image."""
    keys: list[_Group] = []
    for label, generator in zip(index["label"].to_pylist(), index["generator"].to_pylist(), strict=True):
        fake = generator or "unnamed generator"
        keys.append((label, "unlabelled" if label is None else fake if label else "real"))
    groups = sorted(set(keys), key=lambda key: (key[0] is None, key))
    number = {key: i for i, key in enumerate(groups)}
    return groups, np.array([number[key] for key in keys], dtype=np.int64)


def _profile_rows(
    moved: NDArray[np.float64], starts: Sequence[int], groups: Sequence[_Group], numbers: NDArray[np.int64]
) -> Iterator[tuple[Any, ...]]:
    """Mean and standard deviation (ddof = 1) of every group and transition; one image has no spread."""
    for g, (label, name) in enumerate(groups):
        of_group = moved[numbers == g]
        n = len(of_group)
        mean = of_group.mean(axis=0).tolist()
        std = of_group.std(axis=0, ddof=1).tolist() if n > 1 else np.full_like(moved[0], None, dtype=object).tolist()
        for k, *of_transition in zip(starts, mean, std, strict=True):
            yield name, label, k, *chain.from_iterable(zip(*of_transition, strict=True)), n


def _window_rows(
    moved: NDArray[np.float32], starts: Sequence[int], groups: Sequence[_Group], numbers: NDArray[np.int64]
) -> Iterator[tuple[Any, ...]]:
    """All generators together first, then each; nothing where a class is missing."""
    label = np.array([-1 if label is None else label for label, _ in groups], dtype=np.int64)[numbers]
    real = label == 0
    fakes = [(None, label == 1), *((name, numbers == g) for g, (kind, name) in enumerate(groups) if kind == 1)]
    for generator, fake in fakes:
        if real.any() and fake.any():
            for of_window in window_aucs(moved, starts, real, fake):
                yield generator, *of_window, int(real.sum()), int(fake.sum())


def _projection(
    table: FeatureTable, groups: Sequence[_Group], tested: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Return the projection's rows and facts: a sample's raw tokens and their differences; none below three images."""
    chosen = sample_rows(numbers)
    if len(chosen) < 3:
        return [], {}
    blocks = projected_blocks(table.spec.stored_blocks, table.spec.blocks)
    tokens = table.read("cls", blocks=blocks, rows=tested[chosen]).astype(np.float32)  # (M, n, D)
    raw, raw_shares = principal_components(tokens.reshape(len(chosen), -1))
    ltd, ltd_shares = principal_components(np.diff(tokens, axis=1).reshape(len(chosen), -1))
    paths = table.index["path"].take(tested[chosen]).to_pylist()
    placed = zip(paths, numbers[chosen].tolist(), raw.tolist(), ltd.tolist(), strict=True)
    rows = [(path, groups[g][1], groups[g][0], *of_raw, *of_ltd) for path, g, of_raw, of_ltd in placed]
    return rows, {"blocks": blocks, "explained": {"raw": raw_shares.tolist(), "ltd": ltd_shares.tolist()}}
