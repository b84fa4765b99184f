"""The result tables as rows of plain cells, written as CSV (full precision) and Markdown (three decimals)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.evaluate.metrics import METRICS, Mean
from stages.report.names import markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.analyse.csv_file import Cell
    from stages.report.results import NamedSet, Results

METRIC_NAMES = {
    "ap": "AP",
    "roc_auc": "ROC AUC",
    "accuracy": "accuracy",
    "accuracy_real": "accuracy on real",
    "accuracy_fake": "accuracy on fake",
}
# The metrics of the main table, as in the field's papers.
MAIN_METRICS = ("ap", "accuracy")


@dataclass(frozen=True)
class Table:
    """Header and rows of plain cells."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def column_names(results: Results) -> dict[NamedSet, str]:
    """Name the columns: the set's name, with its corpus in front when the study tests several corpora."""
    several = len({tested.corpus for tested in results.sets}) > 1
    return {tested: tested.key if several else tested.name for tested in results.sets}


def main_table(results: Results) -> Table:
    """Heads by sets: AP and accuracy, means over seeds; the mean over sets with how many of how many it covers."""
    header = ["head", "metric", "seeds", *column_names(results).values(), "mean", "mean_std", "sets_in_mean", "sets"]
    rows: list[list[Cell]] = []
    for metric in MAIN_METRICS:
        for entry in results.entries:
            values = [results.of_set(entry, tested, metric).value for tested in results.sets]
            mean = results.of_sets(entry, metric)
            start: list[Cell] = [entry.label, metric, len(results.seeds(entry))]
            rows.append([*start, *values, mean.value, mean.std, mean.count, mean.total])
    return Table(header, rows)


def per_set_table(results: Results) -> Table:
    """Every metric of every head and set: mean and standard deviation over seeds, or why it is undefined."""
    header = ["head", "view", "corpus", "set", "n_real", "n_fake", "metric"]
    header += ["mean", "std", "seeds_in_mean", "seeds", "undefined"]
    rows: list[list[Cell]] = []
    for entry in results.entries:
        for tested in results.sets:
            for metric in METRICS:
                mean = results.of_set(entry, tested, metric)
                start: list[Cell] = [entry.head, entry.view, tested.corpus, tested.name, *results.size(tested), metric]
                why = results.why_undefined(entry, tested, metric)
                rows.append([*start, mean.value, mean.std, mean.count, mean.total, why])
    return Table(header, rows)


def per_seed_table(results: Results) -> Table:
    """Every metric of every head, seed and set, one seed a row; an undefined one is an empty cell."""
    header = ["head", "view", "seed", "corpus", "set", "n_real", "n_fake", *METRICS]
    rows: list[list[Cell]] = []
    for entry in results.entries:
        for tested in results.sets:
            for seed, metrics in results.by_seed(entry, tested).items():
                if metrics is not None:
                    start: list[Cell] = [entry.head, entry.view, seed, tested.corpus, tested.name]
                    values = [metrics.value(metric) for metric in METRICS]
                    rows.append([*start, metrics.n_real, metrics.n_fake, *values])
    return Table(header, rows)


def plot_table(results: Results) -> Table:
    """For ``dvc plots``: means over seeds, one head and set a row; undefined values are empty cells."""
    header = ["result", "head", "set", *METRICS]
    rows: list[list[Cell]] = []
    for tested, name in column_names(results).items():
        for entry in results.entries:
            values = [results.of_set(entry, tested, metric).value for metric in METRICS]
            rows.append([f"{name}: {entry.label}", entry.label, name, *values])
    return Table(header, rows)


def main_markdown(results: Results) -> str:
    """Return the main table, one Markdown table a metric."""
    names = list(column_names(results).values())
    parts = []
    for metric in MAIN_METRICS:
        rows: list[list[Cell]] = []
        for entry in results.entries:
            cells = [_mean_text(results.of_set(entry, tested, metric)) for tested in results.sets]
            mean = results.of_sets(entry, metric)
            covered = f"{_mean_text(mean)} ({mean.count} of {mean.total} sets)"
            rows.append([entry.label, len(results.seeds(entry)), *cells, covered])
        title = f"{METRIC_NAMES[metric]}{' at score 0.5' if metric == 'accuracy' else ''}"
        body = _markdown(["head", "seeds", *names, "mean"], rows, text_columns=1)
        parts.append(f"## {title[0].upper()}{title[1:]}\n\n{body}")
    note = "Mean over seeds ± standard deviation over seeds (one seed: no spread)."
    return "\n".join([*parts, f"{note}\n"])


def per_set_markdown(results: Results) -> str:
    """Return every metric per head and set, with the reasons of undefined ones below."""
    names = column_names(results)
    header = ["set", "head", "real images", "synthetic images", *(METRIC_NAMES[metric] for metric in METRICS)]
    rows: list[list[Cell]] = []
    for tested in results.sets:
        for entry in results.entries:
            values = [_mean_text(results.of_set(entry, tested, metric)) for metric in METRICS]
            rows.append([names[tested], entry.label, *results.size(tested), *values])
    text = _markdown(header, rows, text_columns=2)
    reasons = [
        f"- {markdown(names[tested])}, {markdown(entry.label)}: {METRIC_NAMES[metric]} is undefined: {markdown(why)}"
        for entry, tested, metric, why in results.undefined()
    ]
    return "\n".join([text, *reasons, ""]) if reasons else text


def _mean_text(mean: Mean) -> str:
    if mean.value is None:
        return "undefined"
    spread = "" if mean.std is None else f" ± {mean.std:.3f}"
    return f"{mean.value:.3f}{spread}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[Cell]], *, text_columns: int) -> str:
    """Lay out a table whose first ``text_columns`` are text; the others are aligned right."""
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    lines = [[markdown(cell) for cell in header], rule, *([markdown(str(cell)) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
