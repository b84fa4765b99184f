"""Audit one extracted corpus: everything that makes its numbers mean less than they seem to."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

import pyarrow.compute as pc

from stages.audit.bias import predict_from_metadata
from stages.audit.duplicates import exact_copies, near_copies
from stages.audit.match import Match, matched_rows
from stages.scan.protocols import published_sizes
from storage.atomic import write_text
from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import INDEX_NAME, read_index, rows_of_set, set_names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from stages.reporter import Reporter


_CLASSES = ((0, "real"), (1, "synthetic"))
_EXAMPLES = 20


def run(
    *,
    corpus: str,
    features: Path,
    layout: str,
    out: Path,
    reporter: Reporter,
    train: Path | None = None,
    asked: Sequence[str] = (),
    missing: Sequence[str] = (),
    near: float | None = 0.98,
) -> dict[str, Any]:
    """Write ``out``, the audit of one corpus as JSON; equal features give equal bytes.

    Args:
        corpus: its name.
        features: directory of its extracted clean view.
        layout: its layout, whose published sizes are compared.
        out: the JSON file.
        reporter: gets the progress.
        train: directory of the training corpus's clean view, for duplicates between the two; None where there is none,
            or where it is the same corpus, whose own training split then counts.
        asked: the test sets that the study asks for.
        missing: folders of generators and sets that held no image when the corpus was scanned.
        near: cosine of centred embeddings from which on two images count as near duplicates; None leaves the
            comparison out, which the audit then states.

    Returns:
        What the file holds: ``corpus``, ``warnings`` (a list of ``{"kind", "set", "text"}``; ``set`` is None for what
        is about the whole corpus), ``images``, ``sets``, ``unreadable``, ``duplicates``, ``near_duplicates`` and
        ``label_noise``.

    Raises:
        DataError: features are missing or damaged, or have no labels.
    """
    table = FeatureTable.open(features)
    index = read_index(features / INDEX_NAME).table
    usable = table.index
    if usable["label"].null_count:
        raise DataError(f"{features} holds images without a label; an audit compares real with synthetic images")
    crop: int = table.spec.view["size"]
    warnings: list[dict[str, str | None]] = []

    def warn(texts: dict[str, str], name: str | None = None) -> None:
        warnings.extend({"kind": kind, "set": name, "text": text} for kind, text in texts.items())

    sets = sizes(index, layout, crop)
    for entry in sets:
        warn(size_warnings(entry, layout, crop), entry["name"])
    for name in asked:
        if name not in {entry["name"] for entry in sets}:
            warn({"missing-set": "asked for, and the corpus has no image of it"}, name)
    if missing:
        shown = ", ".join(missing[:_EXAMPLES]) + (", ..." if len(missing) > _EXAMPLES else "")
        total = len(sets) + len(missing)
        warn({"missing-set": f"{len(sets)} of {total} sets have images; means leave out {shown}, without any image"})
    for entry in sets:
        rows = rows_of_set(usable, entry["name"])
        predictor = predict_from_metadata(usable.take(rows))
        entry["predictor"] = asdict(predictor)
        entry["matched"] = {match: len(matched_rows(usable, rows, match)) for match in get_args(Match)}
        warn(predictor.warnings(), entry["name"])
    failed = index.filter(pc.not_equal(index["status"], "ok")).select(["path", "error"])
    kinds = Counter((error or "unknown").partition(":")[0] for error in failed["error"].to_pylist())
    if failed.num_rows:
        reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        warn({"unreadable": f"{failed.num_rows} images cannot be read ({reasons})"})
    others = None if train is None or train.resolve() == features.resolve() else FeatureTable.open(train)
    exact, found = exact_copies(usable, None if others is None else others.index)
    warn(found)
    near_duplicates, found = near_copies(table, others, near, reporter)
    warn(found)
    audit = {
        "corpus": corpus,
        "feature_key": table.key,
        "warnings": warnings,
        "images": {"usable": usable.num_rows, "unreadable": failed.num_rows},
        "sets": sets,
        "without_images": list(missing),
        "unreadable": {
            "images": failed.num_rows,
            "reasons": dict(sorted(kinds.items())),
            "examples": failed.slice(0, _EXAMPLES).to_pylist(),
        },
        "duplicates": exact,
        **near_duplicates,
    }
    write_text(out, json.dumps(audit, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return audit


def sizes(index: pa.Table, layout: str, crop: int) -> list[dict[str, Any]]:
    """Count the images of every set.

    Args:
        index: all rows, failed ones among them.
        layout: the corpus's layout, whose published sizes are looked up.
        crop: side of the crop in pixels.

    Returns:
        One mapping per set: ``name``, ``real``, ``synthetic`` (usable or not), ``expected`` (published size or None),
        ``unreadable``, and ``below_crop``: class -> images with a side shorter than the crop.
    """
    label = index["label"].to_numpy()
    failed = pc.not_equal(index["status"], "ok").to_numpy()
    shorter = pc.less(pc.min_element_wise(index["width"], index["height"]), crop).fill_null(False).to_numpy()
    published = published_sizes(layout)
    sets = []
    for name in set_names(index):
        rows = rows_of_set(index, name)
        classes = {title: rows[label[rows] == number] for number, title in _CLASSES}
        entry: dict[str, Any] = {"name": name, **{title: len(members) for title, members in classes.items()}}
        entry["expected"] = asdict(published[name]) if name in published else None
        entry["unreadable"] = int(failed[rows].sum())
        entry["below_crop"] = {title: int(shorter[members].sum()) for title, members in classes.items()}
        sets.append(entry)
    return sets


def size_warnings(entry: dict[str, Any], layout: str, crop: int) -> dict[str, str]:
    """Compare an entry of :func:`sizes` with the published size and the crop; return kind of warning -> text."""
    real, synthetic, below = entry["real"], entry["synthetic"], entry["below_crop"]
    published = published_sizes(layout).get(entry["name"])
    warnings = {}
    if not real or not synthetic:
        lacks = "synthetic" if real else "real"
        warnings["one-class"] = f"no {lacks} image: AP, AUC and accuracy are undefined, no mean covers this set"
    if published is not None and not published.agrees(real, synthetic):
        warnings["counts"] = f"{real} real and {synthetic} synthetic images; published: {published}"
    if any(below.values()):
        warnings["below-crop"] = (
            f"{below['real']} of {real} real and {below['synthetic']} of {synthetic} synthetic images are smaller than "
            f"the crop of {crop} pixels and are padded or enlarged; where the classes differ, that gives them away"
        )
    return warnings
