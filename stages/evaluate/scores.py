"""The stored scores file: what one head said about every image of one corpus view.

Metrics are always computed from these files, so a new metric needs neither the model nor the features.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import DataError, first_line
from storage.parquet import read_parquet, write_parquet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SCORES_SCHEMA = pa.schema(
    [
        pa.field("path", pa.large_string()),
        pa.field("sets", pa.list_(pa.large_string())),
        pa.field("generator", pa.large_string()),
        pa.field("label", pa.int8()),
        pa.field("logit", pa.float64()),
        pa.field("score", pa.float64()),
    ]
)

# The view that stands for the images held out of a head's training.
HELD_OUT = "held-out"
MATCHED = "matched-"  # begins the view of a subset whose files are alike in both classes

_METADATA_KEY = b"ltdpipe"
_REMEDY = "run `ltdpipe evaluate` again"


@dataclass(frozen=True, kw_only=True)
class ScoreCard:
    """What a scores file is about.

    Attributes:
        head: name of the head in params.yaml.
        seed: the training seed of the head.
        corpus: name of the corpus.
        view: name of the view of the corpus.
        feature_key: key of the features that were scored.
        head_sha256: sha256 of the head's file, hex.
        failed: how many images of the corpus could not be read and so have no row.
        facts: what else is known of the head, plain JSON: its window, the corpus it was trained on.
    """

    head: str
    seed: int
    corpus: str
    view: str
    feature_key: str
    head_sha256: str
    failed: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scores:
    """One scores file in memory; all arrays have length N and are in order of path.

    Attributes:
        source: the file.
        card: what it is about.
        path: (N,) object, str; the images' identities, all different.
        generator: (N,) object, str or None; None for real images.
        label: (N,) int8, 0 real, 1 synthetic.
        logit: (N,) float64, finite.
        members: named test set -> its row numbers, ascending; in order of name. An image may be in several.
    """

    source: Path
    card: ScoreCard
    path: NDArray[np.object_]
    generator: NDArray[np.object_]
    label: NDArray[np.int8]
    logit: NDArray[np.float64]
    members: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.path)


def sigmoid(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-logit)) in float64, without overflow at any size of the logit."""
    exact = logits.astype(np.float64)
    small = np.exp(-np.abs(exact))
    return np.where(exact >= 0, 1.0, small) / (1.0 + small)


def write_scores(path: Path, *, card: ScoreCard, images: pa.Table, logits: NDArray[np.floating[Any]]) -> None:
    """Write a scores file atomically.

    Args:
        path: the file to write.
        card: what the scores are about.
        images: N rows with at least the columns path, sets, generator and label, as a feature index has them.
        logits: (N,) in the same order; > 0 means synthetic.

    Raises:
        DataError: a logit is not finite, a label is neither 0 nor 1, or an image is listed twice.
        ValueError: the numbers of images and logits differ.
    """
    if logits.shape != (images.num_rows,):
        raise ValueError(f"expected logits of shape ({images.num_rows},), one per image, got {logits.shape}")
    exact = logits.astype(np.float64)
    described = images.select(SCORES_SCHEMA.names[:4])
    columns = [*described.columns, pa.array(exact), pa.array(sigmoid(exact))]
    table = pa.table(columns, names=SCORES_SCHEMA.names).cast(SCORES_SCHEMA)
    _check(table, path)
    metadata = json.dumps({**asdict(card), "rows": len(exact)}, sort_keys=True, separators=(",", ":"))
    write_parquet(table.replace_schema_metadata({_METADATA_KEY: metadata.encode()}), path)


def read_card(path: Path) -> ScoreCard:
    """Read what a scores file is about, and none of its scores.

    Raises:
        DataError: it is missing, is no Parquet file, or has no such metadata.
    """
    try:
        found = pq.read_metadata(path).metadata
    except FileNotFoundError as error:
        raise DataError(f"scores file {path} does not exist; {_REMEDY}") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"scores file {path} cannot be read ({first_line(error)}); {_REMEDY}") from error
    return _card(path, found, ())[0]


def read_scores(path: Path) -> Scores:
    """Read a scores file, whose rows may be in any order.

    Raises:
        DataError: it is missing or damaged, has other columns or no metadata, or holds what cannot be a score.
    """
    table = read_parquet(path, what="scores file", remedy=_REMEDY)
    missing = [name for name in SCORES_SCHEMA.names if name not in table.column_names]
    card, rows = _card(path, table.schema.metadata, missing)
    try:
        table = table.select(SCORES_SCHEMA.names).cast(SCORES_SCHEMA)
    except pa.ArrowException as error:
        raise DataError(f"{path} is no scores file: {error}; {_REMEDY}") from error
    if rows != table.num_rows:
        raise DataError(f"{path} states {rows} rows and has {table.num_rows}; {_REMEDY}")
    _check(table, path)
    table = table.sort_by("path")
    return Scores(
        source=path,
        card=card,
        path=table["path"].to_numpy(),
        generator=table["generator"].to_numpy(),
        label=table["label"].to_numpy(),
        logit=table["logit"].to_numpy(),
        members=_members(table["sets"].combine_chunks()),
    )


def _card(path: Path, metadata: Mapping[bytes, bytes] | None, missing: Sequence[str]) -> tuple[ScoreCard, int]:
    """Return the card and the stated number of rows; ``missing`` are columns that the file lacks."""
    try:
        found: dict[str, Any] = {"facts": {}, **json.loads((metadata or {}).get(_METADATA_KEY, b"{}"))}
    except (TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"scores file {path} is damaged: its metadata cannot be read ({error}); {_REMEDY}") from error
    names = [of_card.name for of_card in fields(ScoreCard)]
    lacking = [name for name in [*names, "rows"] if name not in found] + list(missing)
    if lacking:
        raise DataError(f"{path} is no scores file: it lacks {', '.join(lacking)}; {_REMEDY}")
    return ScoreCard(**{name: found[name] for name in names}), int(found["rows"])


def _check(table: pa.Table, path: Path) -> None:
    for name in ("path", "sets", "label", "logit"):
        if table[name].null_count:
            raise DataError(f"{path}: column `{name}` has {table[name].null_count} empty value(s), expected none")
    logit, label = table["logit"].to_numpy(), table["label"].to_numpy()
    broken = np.flatnonzero(~np.isfinite(logit))
    if len(broken):
        image = table["path"][int(broken[0])].as_py()
        raise DataError(
            f"{path}: the logit of {image!r} is {logit[broken[0]]}, expected a finite number "
            f"({len(broken)} of {len(logit)} are not); look at the head's training and {_REMEDY}"
        )
    odd = np.flatnonzero((label != 0) & (label != 1))
    if len(odd):
        image = table["path"][int(odd[0])].as_py()
        raise DataError(f"{path}: the label of {image!r} is {label[odd[0]]}, expected 0 (real) or 1 (synthetic)")
    if len(pc.unique(table["path"])) != table.num_rows:
        counts = pc.value_counts(table["path"])
        twin = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise DataError(f"{path}: the image {twin!r} is listed more than once; name all its sets in one row")


def _members(sets: pa.ListArray) -> dict[str, NDArray[np.int64]]:
    """Return for every set name the numbers of the rows that list it."""
    rows = pc.list_parent_indices(sets).to_numpy(zero_copy_only=False).astype(np.int64)
    encoded = sets.flatten().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    numbered = sorted((name, number) for number, name in enumerate(encoded.dictionary.to_pylist()))
    return {name: np.unique(rows[codes == number]) for name, number in numbered}
