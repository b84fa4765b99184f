"""The report stage: scores files and transition profiles -> everything under ``reports/<study>/``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stages.analyse.csv_file import csv_text
from stages.analyse.run import read_profile
from stages.report import tables
from stages.report.metrics_file import full_metrics, short_metrics
from stages.report.page import render_page
from stages.report.results import load_results
from storage.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def run(
    *,
    study: str,
    score_files: Sequence[Path],
    profile_files: Sequence[Path],
    out: Path,
    notes: Sequence[str] = (),
    head_order: Sequence[str] = (),
    set_order: Sequence[str] = (),
    head_cards: Mapping[str, Mapping[str, object]] | None = None,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write metrics.json, tables, plot data and report.html; equal inputs give equal bytes.

    Args:
        study: name of the study, the title of the report.
        score_files: scores files of all heads, seeds, corpora and views, in any order.
        profile_files: profile files of ``ltdpipe analyse``, may be empty.
        out: folder to write to, ``reports/<study>``.
        notes: what a reader has to know before the numbers; printed first.
        head_order: heads in the order of the tables; others follow in order of name.
        set_order: test sets in the order of the protocol; others follow in order of name.
        head_cards: head -> setting -> value, shown under provenance.
        versions: program -> version, shown under provenance.

    Returns:
        What metrics.json holds (see :func:`stages.report.metrics_file.short_metrics`).

    Raises:
        DataError: a file is missing or unusable, or the scores cannot be compared.
    """
    results = load_results(score_files, heads=head_order, sets=set_order)
    profiles = [read_profile(path) for path in profile_files]
    profiles.sort(key=lambda profile: (profile.corpus, profile.view))
    metrics = short_metrics(results)
    files = {
        "metrics.json": _json(metrics),
        "tables/metrics.json": _json(full_metrics(results)),
        "tables/main.csv": _csv(tables.main_table(results)),
        "tables/main.md": tables.main_markdown(results),
        "tables/per_set.csv": _csv(tables.per_set_table(results)),
        "tables/per_set.md": tables.per_set_markdown(results),
        "tables/per_seed.csv": _csv(tables.per_seed_table(results)),
        "plots/sets.csv": _csv(tables.plot_table(results)),
        "report.html": render_page(
            results, profiles, study=study, notes=notes, versions=versions or {}, head_cards=head_cards or {}
        ),
    }
    for name, text in files.items():
        write_text(out / name, text)
    return metrics


def _csv(table: tables.Table) -> str:
    return csv_text(table.header, table.rows)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
