"""The report stage: scores and analyses -> everything under ``reports/<study>/``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stages.analyse.files import WINDOW_SCHEMA
from stages.measure.bootstrap import REPLICATES
from stages.report import claims, published, tables
from stages.report.generators import generator_table
from stages.report.load import load_results
from stages.report.observation import read_analyses, selection_table, transition_table
from stages.report.page import render_page
from stages.report.robustness import robustness_table
from stages.report.sweeps import read_sweeps, sweep_tables
from stages.report.table import WRITERS, Table, to_csv
from storage.atomic import write_texts
from storage.csv_text import csv_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.report.study import Study


def run(
    study: Study,
    *,
    score_files: Sequence[Path],
    profile_files: Sequence[Path],
    out: Path,
    sweep_files: Mapping[tuple[str, str], Path] | None = None,
    heads_of: Mapping[Path, str] | None = None,
    replicates: int = REPLICATES,
) -> dict[str, Any]:
    """Write metrics.json, tables, plot data and report.html; equal inputs give equal bytes.

    Tables of an earlier run that this one does not make are removed.

    Args:
        study: what is known beside the numbers.
        score_files: of all heads, seeds, corpora and views, held-out ones too, in any order.
        profile_files: of ``ltdpipe analyse``, may be empty; windows and projection lie beside them.
        out: folder to write to, ``reports/<study>``.
        sweep_files: (kind, corpus of the training) -> ``results.csv`` of ``ltdpipe sweep``.
        heads_of: scores file -> what its head is called; None: its name, and what it was trained on where there is more
            than one.
        replicates: bootstrap samples.

    Returns:
        What metrics.json holds (see :func:`stages.report.tables.short_metrics`).

    Raises:
        DataError: a file is missing or unusable, or the scores cannot be compared.
    """
    # a set whose folder held no image at the scan is counted in every mean as one that it lacks
    empty = (f"{audit['corpus']}/{name.rpartition('/')[2]}" for audit in study.audits
             for name in audit.get("without_images", ()))  # fmt: skip
    results = load_results(
        score_files,
        heads=study.head_order,
        sets=[*study.set_order, *empty],
        names=heads_of,
        replicates=replicates,
    )
    analyses = read_analyses(profile_files)
    sweeps = read_sweeps(sweep_files or {}, results)
    first, *others = results.heads
    ablation = tables.ablation_table(results, study.head_settings)
    reproduction = claims.reproduction_table(results, study.set_lists)
    made: dict[str, Table | None] = {
        "main": tables.main_table(results, f"{study.name}: main results"),
        "per_set": tables.per_set_table(results),
        "gains": claims.gains_table(results),
        "tests": tables.comparison_table(results, [(first, other) for other in others]) if others else None,
        "robustness": robustness_table(results),
        "ablation": ablation,
        "ablation_published": ablation and published.ablation_reference(),
        **sweep_tables(sweeps),
        "generators": generator_table(sweeps),
        "layer_transitions": transition_table(analyses.windows),
        "window_selection": selection_table(results),
        "claims": claims.claims_table(results, sweeps, analyses.windows, study.set_lists),
        "reproduction": reproduction,
        "elsewhere": reproduction and published.elsewhere_table(),
    }
    of_lists = [
        table
        for covered in published.covered_lists(results, study.set_lists)
        for table in (published.mean_table(results, covered), published.set_table(results, covered))
        if table
    ]
    made |= {f"published_{number}": table for number, table in enumerate(of_lists, 1)}
    metrics = tables.short_metrics(results)
    headline = {
        corpus: {name: metrics[first][corpus][name] for name in tables.HEADLINE if name in metrics[first][corpus]}
        for corpus in results.corpora
    }
    files = {
        "summary.json": _json(headline),  # the first head alone: what `dvc exp show` can show in a terminal
        "metrics.json": _json(metrics),
        "tables/per_seed.csv": to_csv(tables.per_seed_table(results)),
        "plots/sets.csv": to_csv(tables.plot_table(results)),
        "report.html": render_page(study, results, analyses=analyses, sweeps=sweeps, tables=made),
        "REPRODUCTION.md": claims.reproduction_page(study.name, made),
    }
    for name, table in made.items():
        files |= {f"tables/{name}.{suffix}": write(table) for suffix, write in WRITERS.items() if table is not None}
    if analyses.windows:
        rows = [[file.corpus, *row.values()] for file in analyses.windows for row in file.table.to_pylist()]
        files["tables/windows.csv"] = csv_text(["corpus", *WINDOW_SCHEMA.names], rows)
    write_texts({out / name: text for name, text in files.items()})
    for left in (out / "tables").iterdir():
        if f"tables/{left.name}" not in files:
            left.unlink()  # of an earlier run: tables of two runs must not stand side by side
    return metrics


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
