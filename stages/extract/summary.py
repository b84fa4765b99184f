"""What a run did, counted from the indexes it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stages.extract.read_image import Timing
    from storage.index import Index

_LABELS = {0: "real", 1: "synthetic", None: "unlabelled"}


@dataclass(frozen=True)
class FormatRow:
    """How the images of one class in one format look, failed ones included."""

    label: str
    format: str  # as the decoder names it; "none" where it could not tell
    images: int
    median_size: tuple[int, int] | None  # width and height, each the median
    median_quality: int | None  # of JPEG, estimated


@dataclass(frozen=True)
class ExtractSummary:
    """What a run did.

    Attributes:
        usable: images usable in every view.
        failed: reason -> number of images that failed in at least one view.
        extracted: images that were read and encoded just now, in at least one view.
        keys: view folder -> feature key.
        views: view folder -> images encoded just now.
        formats: how the images look, per class and format.
        small: usable images with a side smaller than the backbone's input: their crop is padded or repeated.
        timing: where the seconds went.
    """

    usable: int
    failed: dict[str, int]
    extracted: int
    keys: dict[str, str]
    views: dict[str, int]
    formats: tuple[FormatRow, ...]
    small: int
    timing: Timing

    @property
    def key(self) -> str:
        """The feature key of the first view."""
        return next(iter(self.keys.values()))

    @property
    def failed_kinds(self) -> dict[str, int]:
        """Kind of failure -> number of images."""
        kinds: dict[str, int] = {}
        for reason, count in self.failed.items():
            kind = reason.partition(":")[0]
            kinds[kind] = kinds.get(kind, 0) + count
        return kinds


def summarise(indexes: Mapping[str, Index], *, made: Mapping[str, int], size: int, timing: Timing) -> ExtractSummary:
    """Count what the indexes of all views (by folder) hold, of which ``made`` images were encoded in this run.

    ``size`` is S, the backbone's input side.
    """
    tables = [index.table for index in indexes.values()]
    first = tables[0]
    errors = pc.coalesce(*(table["error"] for table in tables))
    failed = {each["values"]: each["counts"] for each in errors.drop_null().value_counts().to_pylist()}
    sides = pc.min_element_wise(first["width"], first["height"])
    small = pc.and_(pc.less(sides, size), pc.equal(first["status"], "ok"))
    return ExtractSummary(
        usable=errors.null_count,
        failed=failed,
        extracted=max(made.values()),
        keys={view: index.spec.key for view, index in indexes.items()},
        views=dict(made),
        formats=_formats(first),
        small=pc.sum(small, min_count=0).as_py(),
        timing=timing,
    )


def _formats(table: pa.Table) -> tuple[FormatRow, ...]:
    columns = ["width", "height", "jpeg_quality"]
    rows = []
    for group in table.group_by(["label", "format"]).aggregate([(name, "list") for name in columns]).to_pylist():
        values = [[value for value in group[f"{name}_list"] if value is not None] for name in columns]
        width, height, quality = (int(np.median(known)) if known else None for known in values)
        size = None if width is None or height is None else (width, height)
        images = len(group["width_list"])
        rows.append(FormatRow(_LABELS[group["label"]], group["format"] or "none", images, size, quality))
    return tuple(sorted(rows, key=lambda row: (row.label, row.format)))
