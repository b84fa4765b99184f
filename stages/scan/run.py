"""Scan one corpus into its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from stages.scan.layouts import LAYOUTS
from stages.scan.walk import Walk
from storage import names
from storage.errors import DataError, SettingError
from storage.manifest import manifest_table, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


@dataclass(frozen=True)
class ScanSummary:
    """How many files a scan found: by class, by set, and what it left out, by kind."""

    real: int
    fake: int
    unlabelled: int
    sets: tuple[str, ...]
    skipped: dict[str, int]

    def __str__(self) -> str:
        """One line for the terminal."""
        counts = f"{self.real} real, {self.fake} synthetic"
        counts += f", {self.unlabelled} unlabelled" if self.unlabelled else ""
        left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(self.skipped.items()))
        return f"{counts}; sets: {', '.join(self.sets)}" + (f"; left out: {left_out}" if left_out else "")


def run(*, corpus: str, root: Path, layout: str, out: Path | None = None) -> tuple[pa.Table, ScanSummary]:
    """List the image files below ``root`` in a manifest.

    Args:
        corpus: the corpus's name; a corpus without set folders has one set of this name.
        root: folder of images.
        layout: a name in ``LAYOUTS``.
        out: where the manifest is written; None returns it only.

    Raises:
        DataError: the root is missing, is no folder, has no image, or a file's class cannot be told.
        SettingError: the layout is not known.
    """
    if layout not in LAYOUTS:
        raise SettingError(f"layout {layout!r} is not known; choose from {', '.join(LAYOUTS)}")
    if not root.is_dir():
        state = "is a file" if root.exists() else "does not exist"
        raise DataError(f"corpus {corpus!r}: {root} {state}; expected a folder of images")
    walk = Walk(root)
    files = list(walk)
    if not files:
        seen = ", ".join(f"{count} {kind}" for kind, count in sorted(walk.skipped.items())) or "it is empty"
        raise DataError(f"corpus {corpus!r}: no image file below {root} ({seen})")
    labelled = LAYOUTS[layout].label(files, corpus)
    rows = (
        {
            "path": names.to_text("/".join(file.parts)),
            "size_bytes": file.size_bytes,
            "mtime_ns": file.mtime_ns,
            "category": None,
            **columns,
        }
        for file, columns in zip(files, labelled, strict=True)
    )
    table = manifest_table(rows)
    if out is not None:
        write_manifest(table, out)
    return table, _summary(table, walk)


def _summary(table: pa.Table, walk: Walk) -> ScanSummary:
    fake = pc.sum(table["label"]).as_py() or 0
    unlabelled = table["label"].null_count
    sets = sorted(pc.unique(pc.list_flatten(table["sets"])).to_pylist())
    return ScanSummary(len(table) - fake - unlabelled, fake, unlabelled, tuple(sets), dict(walk.skipped))
