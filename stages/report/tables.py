"""The result tables of a study, of measured numbers alone."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from stages.evaluate.metrics import METRICS
from stages.report.table import Block, Table, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.report.intervals import Uncertainty
    from stages.report.results import Results
    from stages.report.table import Cell

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
# Those that the papers publish.
PAPER_METRICS = ("accuracy", "ap")


def metric_title(metric: str) -> str:
    """Name a metric where a line begins."""
    name = METRIC_NAMES[metric]
    return name[0].upper() + name[1:]


def main_table(results: Results, title: str) -> Table:
    """Heads by sets: AP and accuracies, means over seeds; the mean over sets with how many of how many it covers."""
    names = results.column_names()
    header = ["head", "seeds", *names.values(), "mean", "mean_std", "sets_in_mean", "sets"]
    blocks = []
    for metric in MAIN_METRICS:
        rows: list[Sequence[Cell]] = []
        for head in results.heads:
            values = [Value(results.of_set(head, tested, metric).value) for tested in names]
            mean = results.of_sets(head, metric)
            std = None if mean.std is None else Value(mean.std)
            rows.append([head, len(results.seeds(head)), *values, Value(mean.value), std, mean.count, mean.total])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    sizes = ["{}: {:,} real, {:,} synthetic".format(name, *results.size(tested)) for tested, name in names.items()]
    notes = [
        "Percent; means over seeds. The mean is over the sets named in the columns, in that order; "
        "sets_in_mean says how many of them it covers, and mean_std is its standard deviation over seeds.",
        "Accuracy is at score 0.5. The oracle's threshold is chosen on the tested images themselves: nobody has it. "
        "The held-out threshold comes from images of the training domain that training did not see.",
        f"Images: {'; '.join(sizes)}.",
    ]
    return Table(title, header, blocks, ranked=range(2, 3 + len(names)), block_name="metric", notes=notes)


def per_set_table(results: Results, uncertainty: Uncertainty) -> Table:
    """Every metric of every head and set: mean, spread over seeds, interval over images, or why it is undefined."""
    header = ["head", "corpus", "set", "n_real", "n_fake", "metric", "mean", "std", "low", "high"]
    header += ["seeds_in_mean", "seeds", "undefined"]
    rows: list[Sequence[Cell]] = []
    for head, tested, metric in product(results.heads, results.sets, METRICS):
        mean = results.of_set(head, tested, metric)
        low, high = uncertainty.of_set(head, tested, metric) or (None, None)
        numbers = (mean.value, mean.std, low, high, mean.count, mean.total)
        why = results.why_undefined(head, tested, metric)
        rows.append([head, tested.corpus, tested.name, *results.size(tested), metric, *numbers, why])
    notes = ["low and high: 95 % bootstrap interval over images of the mean over seeds; std: over seeds."]
    return Table("Every metric of every head and test set", header, [Block("", rows)], text_columns=3, notes=notes)


def per_seed_table(results: Results) -> Table:
    """Every metric of every head, seed, view and set, one seed a row; an undefined one is an empty cell."""
    header = ["head", "view", "seed", "corpus", "set", "n_real", "n_fake", *METRICS]
    rows: list[Sequence[Cell]] = []
    for (head, view), tested in product(sorted(results.measured), results.sets):
        for seed, metrics in results.by_seed(head, tested, view).items():
            if metrics is not None:
                place = (head, view or results.samples[tested.corpus].view, seed, tested.corpus, tested.name)
                rows.append([*place, metrics.n_real, metrics.n_fake, *map(metrics.value, METRICS)])
    return Table("Every metric of every head, seed, view and test set", header, [Block("", rows)], text_columns=2)


def plot_table(results: Results) -> Table:
    """For ``dvc plots``: means over seeds, one head and set a row; undefined values are empty cells."""
    rows: list[Sequence[Cell]] = []
    for (tested, name), head in product(results.column_names().items(), results.heads):
        values = [results.of_set(head, tested, metric).value for metric in METRICS]
        rows.append([f"{name}: {head}", head, name, *values])
    return Table("Plot data", ["result", "head", "set", *METRICS], [Block("", rows)], text_columns=3)


def comparison_table(results: Results, uncertainty: Uncertainty, head: str, others: Sequence[str]) -> Table | None:
    """Paired tests of a head against others, set by set; None where there is no other."""
    names = results.column_names()
    header = ["head", "other", "set", "metric", "difference", "low", "high", "p", "p_holm", "test"]
    rows: list[Sequence[Cell]] = []
    for other, found in ((name, found) for name in others for found in uncertainty.compare(head, name)):
        test = "paired bootstrap" if found.seed is None else f"McNemar, seed {found.seed}"
        difference = [Value(value, signed=True) for value in found.difference]
        place = (head, other, names[found.tested], METRIC_NAMES[found.metric])
        rows.append([*place, *difference, found.p, found.p_holm, test])
    notes = [
        "difference: first head minus the other, in percentage points, means over seeds, with its 95 % paired "
        "bootstrap interval over images (low, high).",
        "p_holm: Holm-corrected over the sets of a pair of heads and a metric. McNemar's test compares the decisions "
        "of one seed, whereas the difference is over all seeds.",
    ]
    table = Table("Paired tests between heads", header, [Block("", rows)], text_columns=4, notes=notes)
    return table if others else None


def ablation_table(results: Results, settings: Mapping[str, Mapping[str, object]]) -> Table | None:
    """Which branches the LTD head needs, as in the paper's ablation; None where the study has no ablated head."""
    found = _ablated(results, settings)
    corpora = list(dict.fromkeys(tested.corpus for tested in results.sets))
    blocks = []
    for metric in PAPER_METRICS:
        rows: list[Sequence[Cell]] = []
        for head, parts in found.items():
            by_corpus = [results.of_sets(head, metric, [t for t in results.sets if t.corpus == c]) for c in corpora]
            means = [*by_corpus, results.of_sets(head, metric)]
            rows.append([head, *("yes" if part else "no" for part in parts), *map(Value.of, means)])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    header = ["head", "raw", "LTD", "position", *corpora, "mean over sets"]
    ranked = range(4, 5 + len(corpora))
    covered = "; ".join(f"{corpus}: {results.coverage(corpus)}" for corpus in corpora)
    notes = [f"Percent, mean over the test sets of each corpus, ± over seeds. {covered}."]
    table = Table("Ablation of the LTD head", header, blocks, 4, ranked, block_name="metric", notes=notes)
    return table if found else None


def _ablated(results: Results, settings: Mapping[str, Mapping[str, object]]) -> dict[str, tuple[bool, bool, bool]]:
    """Return the heads that differ from the first LTD head in branches and position only -> (raw, LTD, position)."""
    found: dict[str, tuple[bool, bool, bool]] = {}
    kind: dict[str, object] | None = None
    for name in results.heads:
        head = settings.get(name, {})
        fixed = {key: value for key, value in head.items() if key not in ("branches", "position")}
        if head.get("type") == "ltd" and kind in (None, fixed):
            kind = fixed
            branches = head.get("branches")
            names = branches if isinstance(branches, (list, tuple)) else ()
            found[name] = ("raw" in names, "delta" in names, bool(head.get("position")))
    return found if len(found) > 1 else {}
