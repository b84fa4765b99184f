"""The result tables of a study: rows of cells, written by ``stages/report/table.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.evaluate.metrics import ERRORS, METRICS
from stages.report.table import Block, Cell, Table, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.evaluate.means import Mean
    from stages.report.intervals import Uncertainty
    from stages.report.results import Entry, NamedSet, Results

METRIC_NAMES = {
    "ap": "AP",
    "roc_auc": "ROC AUC",
    "accuracy": "accuracy",
    "accuracy_real": "accuracy on real",
    "accuracy_fake": "accuracy on fake",
    "balanced_accuracy": "balanced accuracy",
    "tpr_at_fpr_1": "TPR at 1 % FPR",
    "tpr_at_fpr_01": "TPR at 0.1 % FPR",
    "oracle_accuracy": "oracle accuracy",
    "calibrated_accuracy": "accuracy, held-out threshold",
    "unlabelled_accuracy": "accuracy, unlabelled threshold",
    "ece": "ECE",
    "brier": "Brier score",
}
# The metrics of the main table, as in the field's papers.
MAIN_METRICS = ("ap", "accuracy", "oracle_accuracy", "calibrated_accuracy")


def column_names(results: Results) -> dict[NamedSet, str]:
    """Name the columns: the set's name, with its corpus in front when the study tests several corpora."""
    several = len({tested.corpus for tested in results.sets}) > 1
    return {tested: tested.key if several else tested.name for tested in results.sets}


def scaled(mean: Mean, metric: str, *, interval: tuple[float, float] | None = None, spread: bool = True) -> Value:
    """Return a mean as a cell: in percent, or as it is for errors."""
    percent = metric not in ERRORS
    std = mean.std if spread else None
    return Value(mean.value, std, interval, scale=100.0 if percent else 1.0, digits=2 if percent else 4)


def main_table(results: Results, title: str) -> Table:
    """Heads by sets: AP and accuracies, means over seeds; the mean over sets with how many of how many it covers."""
    names = list(column_names(results).values())
    header = ["head", "seeds", *names, "mean", "mean_std", "sets_in_mean", "sets"]
    blocks = []
    for metric in MAIN_METRICS:
        rows: list[list[Cell]] = []
        for entry in results.entries:
            values = [scaled(results.of_set(entry, t, metric), metric, spread=False) for t in results.sets]
            mean = results.of_sets(entry, metric)
            std = Value(mean.std) if mean.std is not None else None
            average = scaled(mean, metric, spread=False)
            rows.append([entry.label, len(results.seeds(entry)), *values, average, std, mean.count, mean.total])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    ranked = frozenset(range(2, 3 + len(names)))
    sizes = [f"{name}: {n_real:,} real, {n_fake:,} synthetic" for name, (n_real, n_fake) in _sizes(results)]
    notes = [
        "Percent; means over seeds. The mean is over the sets named in the columns, in that order; "
        "sets_in_mean says how many of them it covers, and mean_std is its standard deviation over seeds.",
        "Accuracy is at score 0.5. The oracle's threshold is chosen on the tested images themselves: nobody has it. "
        "The held-out threshold comes from images of the training domain that training did not see.",
        f"Images: {'; '.join(sizes)}.",
    ]
    return Table(title, header, blocks, ranked=ranked, block_name="metric", notes=notes)


def per_set_table(results: Results, uncertainty: Uncertainty) -> Table:
    """Every metric of every head and set: mean, spread over seeds, interval over images, or why it is undefined."""
    header = ["head", "corpus", "set", "n_real", "n_fake", "metric", "mean", "std", "low", "high"]
    header += ["seeds_in_mean", "seeds", "undefined"]
    rows: list[list[Cell]] = []
    for entry in results.entries:
        for tested in results.sets:
            for metric in METRICS:
                mean = results.of_set(entry, tested, metric)
                low, high = uncertainty.of_set(entry, tested, metric) or (None, None)
                start: list[Cell] = [entry.head, tested.corpus, tested.name, *results.size(tested), metric]
                why = results.why_undefined(entry, tested, metric)
                rows.append([*start, mean.value, mean.std, low, high, mean.count, mean.total, why])
    notes = ["low and high: 95 % bootstrap interval over images of the mean over seeds; std: over seeds."]
    return Table("Every metric of every head and test set", header, [Block("", rows)], text_columns=3, notes=notes)


def per_seed_table(results: Results) -> Table:
    """Every metric of every head, seed, view and set, one seed a row; an undefined one is an empty cell."""
    header = ["head", "view", "seed", "corpus", "set", "n_real", "n_fake", *METRICS]
    rows: list[list[Cell]] = []
    for entry in sorted(results.measured):
        for tested in results.sets:
            for seed, metrics in results.by_seed(entry, tested).items():
                if metrics is not None:
                    view = entry.view or results.samples[tested.corpus].view
                    start: list[Cell] = [entry.head, view, seed, tested.corpus, tested.name]
                    values = [metrics.value(metric) for metric in METRICS]
                    rows.append([*start, metrics.n_real, metrics.n_fake, *values])
    return Table("Every metric of every head, seed, view and test set", header, [Block("", rows)], text_columns=2)


def comparison_table(results: Results, uncertainty: Uncertainty, pairs: Sequence[tuple[str, str]]) -> Table:
    """Paired tests between heads, set by set."""
    names = column_names(results)
    header = ["head", "other", "set", "metric", "difference", "low", "high", "p", "p_holm", "test"]
    rows: list[list[Cell]] = []
    for head, other in pairs:
        for found in uncertainty.compare(head, other):
            test = "paired bootstrap" if found.seed is None else f"McNemar, seed {found.seed}"
            ends: list[Cell] = [Value(value, signed=True) for value in (found.difference, found.low, found.high)]
            row: list[Cell] = [found.head, found.other, names[found.tested], METRIC_NAMES[found.metric], *ends]
            rows.append([*row, found.p, found.p_holm, test])
    notes = [
        "difference: first head minus the other, in percentage points, means over seeds, with its 95 % paired "
        "bootstrap interval over images (low, high).",
        "p_holm: Holm-corrected over the sets of a pair of heads and a metric. McNemar's test compares the decisions "
        "of one seed, whereas the difference is over all seeds.",
    ]
    return Table("Paired tests between heads", header, [Block("", rows)], text_columns=4, notes=notes)


def plot_table(results: Results) -> Table:
    """For ``dvc plots``: means over seeds, one head and set a row; undefined values are empty cells."""
    header = ["result", "head", "set", *METRICS]
    rows: list[list[Cell]] = []
    for tested, name in column_names(results).items():
        for entry in results.entries:
            values = [results.of_set(entry, tested, metric).value for metric in METRICS]
            rows.append([f"{name}: {entry.label}", entry.label, name, *values])
    return Table("Plot data", header, [Block("", rows)], text_columns=3)


def ablation_entries(results: Results, settings: dict[str, dict[str, object]]) -> dict[Entry, tuple[bool, bool, bool]]:
    """Return the heads that differ from the first LTD head in branches and position only -> (raw, LTD, position)."""
    free = ("branches", "position")
    found: dict[Entry, tuple[bool, bool, bool]] = {}
    kind: dict[str, object] | None = None
    for entry in results.entries:
        head = settings.get(entry.head, {})
        fixed = {name: value for name, value in head.items() if name not in free}
        if head.get("type") == "ltd" and kind in (None, fixed):
            kind = fixed
            branches = head.get("branches")
            names = branches if isinstance(branches, (list, tuple)) else ()
            found[entry] = ("raw" in names, "delta" in names, bool(head.get("position")))
    return found if len(found) > 1 else {}


def ablation_table(results: Results, settings: dict[str, dict[str, object]]) -> Table | None:
    """Which branches the LTD head needs, as in the paper's ablation; None where the study has no ablated head."""
    found = ablation_entries(results, settings)
    corpora = list(dict.fromkeys(tested.corpus for tested in results.sets))
    blocks = []
    for metric in ("accuracy", "ap"):
        rows: list[list[Cell]] = []
        for entry, parts in found.items():
            by_corpus = [
                scaled(results.of_sets(entry, metric, [t for t in results.sets if t.corpus == corpus]), metric)
                for corpus in corpora
            ]
            marks: list[Cell] = ["yes" if part else "no" for part in parts]
            rows.append([entry.head, *marks, *by_corpus, scaled(results.of_sets(entry, metric), metric)])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    header = ["head", "raw", "LTD", "position", *corpora, "mean over sets"]
    ranked = frozenset(range(4, 5 + len(corpora)))
    covered = "; ".join(f"{corpus}: {results.coverage(corpus)}" for corpus in corpora)
    notes = [f"Percent, mean over the test sets of each corpus, ± over seeds. {covered}."]
    title = "Ablation of the LTD head"
    return (
        Table(title, header, blocks, text_columns=4, ranked=ranked, block_name="metric", notes=notes) if found else None
    )


def _sizes(results: Results) -> list[tuple[str, tuple[int, int]]]:
    return [(name, results.size(tested)) for tested, name in column_names(results).items()]
