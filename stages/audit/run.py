"""Audit one extracted corpus: everything that makes its numbers mean less than they seem to."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

from stages.audit.duplicates import exact_copies, near_copies
from stages.audit.match import Match, matched_rows
from stages.audit.predictor import predict_from_facts
from stages.audit.sets import distributions, size_warnings, sizes, unreadable
from storage.atomic import write_text
from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import INDEX_NAME, read_index, rows_of_set

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.reporter import Reporter


def run(
    *,
    corpus: str,
    features: Path,
    layout: str,
    out: Path,
    reporter: Reporter,
    train: Path | None = None,
    asked: Sequence[str] = (),
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
        near: cosine of centred embeddings from which on two images count as near duplicates; None leaves the
            comparison out, which the audit then states.

    Returns:
        What the file holds: ``corpus``, ``warnings`` (a list of ``{"kind", "set", "text"}``; ``set`` is None for what
        is about the whole corpus), ``images``, ``sets``, ``classes``, ``predictor``, ``unreadable``, ``duplicates``,
        ``near_duplicates`` and ``label_noise``.

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
    for entry in sets:
        rows = rows_of_set(usable, entry["name"])
        predictor = predict_from_facts(usable.take(rows))
        entry["predictor"] = asdict(predictor)
        entry["matched"] = {match: len(matched_rows(usable, rows, match)) for match in get_args(Match)}
        warn(predictor.warnings(), entry["name"])
    broken = unreadable(index)
    if broken["images"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in broken["reasons"].items())
        warn({"unreadable": f"{broken['images']} images cannot be read ({reasons})"})
    others = None if train is None or train.resolve() == features.resolve() else FeatureTable.open(train)
    exact, found = exact_copies(usable, others)
    warn(found)
    near_duplicates, found = near_copies(table, others, near, reporter)
    warn(found)
    audit = {
        "corpus": corpus,
        "feature_key": table.key,
        "warnings": warnings,
        "images": {"usable": usable.num_rows, "unreadable": broken["images"]},
        "sets": sets,
        "classes": distributions(usable),
        "predictor": asdict(predict_from_facts(usable)),
        "unreadable": broken,
        "duplicates": exact,
        **near_duplicates,
    }
    write_text(out, json.dumps(audit, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return audit
