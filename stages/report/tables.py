"""The result tables of a study, of measured numbers alone."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from stages.measure.metrics import METRICS
from stages.report.table import Block, Table, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.measure.means import Mean
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


COMPARISON_NOTE = (
    "difference: first minus other in percentage points, means over seeds, with its 95 % interval (low, high); p: of "
    "no difference. Both hold the paired spread over images and, of methods, that over seeds; where a head has one "
    "seed they are of these weights, not of the methods."
)


def metric_title(metric: str) -> str:
    """Name a metric where a line begins."""
    name = METRIC_NAMES[metric]
    return name[0].upper() + name[1:]


def main_table(results: Results, title: str) -> Table:
    """Heads by sets: AP and accuracies, means over seeds; for each corpus the mean over its sets and their number."""
    names = results.column_names()
    header = ["head", "seeds", *names.values()]
    for corpus in results.corpora:
        of = f"{corpus}: " if len(results.corpora) > 1 else ""
        header += [f"{of}{name}" for name in ("mean", "mean_std", "sets_in_mean", "sets")]
    blocks = []
    for metric in MAIN_METRICS:
        rows: list[Sequence[Cell]] = []
        for head in results.heads:
            values: list[Cell] = [Value(results.of_set(head, tested, metric).value) for tested in names]
            for mean in (results.of_corpus(head, metric, corpus) for corpus in results.corpora):
                std = None if mean.std is None else Value(mean.std)
                values += [Value(mean.value), std, mean.count, mean.total]
            rows.append([head, len(results.seeds(head)), *values])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    sizes = ["{}: {:,} real, {:,} synthetic".format(name, *results.size(tested)) for tested, name in names.items()]
    notes = [
        "Percent; means over seeds. A mean is over the test sets of one corpus; sets_in_mean says how many of them it "
        "covers, and mean_std is its standard deviation over seeds.",
        "Accuracy is at score 0.5. The oracle's threshold is chosen on the tested images themselves: an upper bound. "
        "The held-out threshold comes from images of the training domain that training did not see.",
        f"Images: {'; '.join(sizes)}.",
    ]
    means = (2 + len(names) + 4 * at for at in range(len(results.corpora)))
    ranked = (*range(2, 2 + len(names)), *means)
    return Table(title, header, blocks, ranked=ranked, block_name="metric", notes=notes)


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
    notes = ["low and high: 95 % interval over images of the mean over seeds; std: over seeds."]
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


def comparison_table(results: Results, uncertainty: Uncertainty, pairs: Sequence[tuple[str, str]]) -> Table | None:
    """Paired tests of pairs of heads, set by set; None where there is no pair."""
    names = results.column_names()
    header = ["head", "other", "set", "metric", "difference", "low", "high", "p", "p_holm", "of"]
    rows: list[Sequence[Cell]] = []
    for each in uncertainty.compare(pairs):
        place = (each.head, each.other, names[each.tested], METRIC_NAMES[each.metric])
        ends = [Value(value, signed=True) for value in each.found[:3]]
        rows.append([*place, *ends, each.found.p, each.p_holm, each.of])
    notes = [COMPARISON_NOTE, f"p_holm: Holm-corrected over all {len(rows)} tests of this table."]
    table = Table("Paired tests between heads", header, [Block("", rows)], text_columns=4, notes=notes)
    return table if pairs else None


def ablation_table(results: Results, settings: Mapping[str, Mapping[str, object]]) -> Table | None:
    """Which branches the LTD head needs, as in the paper's ablation; None where the study has no ablated head."""
    found = _ablated(results, settings)
    several = len(results.corpora) > 1
    blocks = []
    for metric in PAPER_METRICS:
        rows: list[Sequence[Cell]] = []
        for head, parts in found.items():
            means = [results.of_corpus(head, metric, corpus) for corpus in results.corpora]
            of_all = [_mean_of_means(means)] if several else []
            rows.append([head, *("yes" if part else "no" for part in parts), *map(Value.of, means), *of_all])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    last = [f"mean of {len(results.corpora)} benchmarks"] if several else []
    header = ["head", "raw", "LTD", "position", *results.corpora, *last]
    covered = "; ".join(f"{corpus}: {results.coverage(corpus)}" for corpus in results.corpora)
    notes = [f"Percent, mean over the test sets of each corpus, ± over seeds. {covered}."]
    ranked = range(4, len(header))
    table = Table("Ablation of the LTD head", header, blocks, 4, ranked, block_name="metric", notes=notes)
    return table if found else None


def _mean_of_means(means: Sequence[Mean]) -> Value:
    """The mean of the benchmarks' means; undefined where one of them is."""
    values = [mean.value for mean in means if mean.value is not None]
    return Value(sum(values) / len(values) if len(values) == len(means) else None)


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
