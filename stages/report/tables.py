"""The result tables of a study, of measured numbers alone, and what metrics.json holds."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from stages.measure.bootstrap import holm
from stages.measure.metrics import METRICS, shown_in
from stages.report.results import NOT_SCORED, NamedSet
from stages.report.table import Block, Table, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.measure.frame import Mean
    from stages.report.results import Results
    from stages.report.table import Cell, Rows

# Those that papers publish, in the order of their tables and of published.yaml.
PAPER_METRICS = ("accuracy", "ap")
HEADLINE = shown_in("headline")


def main_table(results: Results, title: str) -> Table:
    """Heads by sets: AP and accuracies, means over seeds; for each corpus the mean over its sets and their number."""
    names = results.column_names()
    header = ["head", "seeds", *names.values()]
    for corpus in results.corpora:
        of = f"{corpus}: " if len(results.corpora) > 1 else ""
        header += [f"{of}{name}" for name in ("mean", "mean_std", "sets_in_mean", "sets")]
    blocks = []
    for metric in shown_in("main"):
        rows: Rows = []
        for head in results.heads:
            means = []
            for mean in (results.of_corpus(head, metric, corpus) for corpus in results.corpora):
                means += [Value(mean.value), None if mean.std is None else Value(mean.std), mean.count, mean.total]
            of_sets = (Value(results.of_set(head, tested, metric).value) for tested in names)
            rows.append([head, len(results.seeds(head)), *of_sets, *means])
        blocks.append(Block(METRICS[metric].title, rows))
    notes = [
        "Percent; means over seeds. A mean is over the test sets of one corpus; sets_in_mean says how many of them it "
        "covers, and mean_std is its standard deviation over seeds.",
        "Accuracy is at score 0.5. The oracle's threshold is chosen on the tested images themselves: an upper bound. "
        "The held-out threshold comes from images of the training domain that training did not see.",
    ]
    ranked = [*range(2, 2 + len(names)), *range(2 + len(names), len(header), 4)]
    return Table(title, header, blocks, ranked=ranked, block_name="metric", notes=notes)


def per_set_table(results: Results) -> Table:
    """Every metric of every head and set: mean, spread over seeds, interval over images, or why it is undefined."""
    header = ["head", "corpus", "set", "n_real", "n_fake", "metric", "mean", "std", "low", "high"]
    header += ["seeds_in_mean", "seeds", "undefined"]
    rows: Rows = []
    for head, tested, metric in product(results.heads, results.sets, METRICS):
        mean = results.of_set(head, tested, metric)
        interval = results.interval(head, metric, [tested]) or (None, None)
        numbers = (mean.value, mean.std, *interval, mean.count, mean.total)
        why = results.why_undefined(head, tested, metric)
        rows.append([head, *tested, *results.size(tested), metric, *numbers, why])
    notes = ["low and high: 95 % interval over images of the mean over seeds; std: over seeds."]
    return Table("Every metric of every head and test set", header, [Block("", rows)], text_columns=3, notes=notes)


def per_seed_table(results: Results) -> Table:
    """Every metric of every head, seed, view and set, one seed a row; an undefined one is an empty cell."""
    frame = results.frame[results.frame["why"] != NOT_SCORED].astype({"n_real": int, "n_fake": int})
    order = {tested: place for place, tested in enumerate(results.sets)}
    frame["order"] = [order[NamedSet(*pair)] for pair in zip(frame["corpus"], frame["set"], strict=True)]
    places = ["head", "view", "order", "seed", "corpus", "set", "n_real", "n_fake"]
    wide = frame.pivot(index=places, columns="metric", values="value").sort_index().reset_index()
    clean = wide["corpus"].map(lambda name: results.images[name].card.view)
    wide["view"] = wide["view"].where(wide["view"] != "", clean)
    header = ["head", "view", "seed", "corpus", "set", "n_real", "n_fake", *METRICS]
    rows = wide[header].astype(object).where(wide.notna(), None).to_numpy().tolist()
    return Table("Every metric of every head, seed, view and test set", header, [Block("", rows)], text_columns=2)


def plot_table(results: Results) -> Table:
    """For ``dvc plots``: means over seeds, one head and set a row; undefined values are empty cells."""
    rows: Rows = [
        [f"{name}: {head}", head, name, *(results.of_set(head, tested, metric).value for metric in METRICS)]
        for (tested, name), head in product(results.column_names().items(), results.heads)
    ]
    return Table("Plot data", ["result", "head", "set", *METRICS], [Block("", rows)], text_columns=3)


def comparison_table(
    results: Results, pairs: Sequence[tuple[str, str]], title: str = "Paired tests between heads"
) -> Table:
    """Paired tests of pairs of heads, on every set with both classes that both have scored.

    The family that p values are corrected over is this table.
    """
    names, p_values = results.column_names(), []
    rows: list[list[Cell]] = []
    for pair, metric, tested in product(pairs, shown_in("tests"), results.sets):
        if found := results.gain(*pair, metric, [tested]):
            means = (Value.of(results.of_set(head, tested, metric)) for head in pair)
            of = "methods" if min(len(results.seeds(head)) for head in pair) > 1 else "weights"
            ends = (Value(end, signed=True) for end in found[:3])
            rows.append([*pair, names[tested], METRICS[metric].title, *means, *ends, found.p, of])
            p_values.append(found.p)
    corrected: Rows = [[*row[:-1], p, row[-1]] for row, p in zip(rows, holm(p_values), strict=True)]
    header = ["head", "other", "set", "metric", "first", "second", "difference", "low", "high", "p", "p_holm", "of"]
    notes = [
        "Percent, means over seeds. difference: first minus second in percentage points, with its 95 % interval (low, "
        "high); p: of no difference. Both hold the paired spread over images and, of methods, that over seeds; where a "
        "head has one seed they are of these weights, not of the methods.",
        f"p_holm: Holm-corrected over all {len(rows)} tests of this table.",
    ]
    return Table(title, header, [Block("", corrected)], text_columns=4, notes=notes)


def ablation_table(results: Results, settings: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Which branches the LTD head needs, as in the paper's ablation; None where the study has no ablated head.

    Ablated are the heads that differ from the first LTD head in branches, position and the shared encoder only.
    """
    parts: dict[str, list[bool]] = {}
    varied = ("branches", "position", "shared")
    kinds: list[Mapping[str, Any]] = []
    for head in results.heads:
        kind = {key: value for key, value in settings.get(head, {}).items() if key not in varied}
        if kind.get("type") == "ltd" and kind == (kinds or [kind])[0]:
            kinds.append(kind)
            branches = settings[head]["branches"]
            shared = settings[head].get("shared", True)
            parts[head] = ["raw" in branches, "delta" in branches, settings[head]["position"], shared]
    several = len(results.corpora) > 1
    blocks = []
    for metric in PAPER_METRICS:
        rows: Rows = []
        for head, has in parts.items():
            means = [results.of_corpus(head, metric, corpus) for corpus in results.corpora]
            of_all = [_mean_of_means(means)] if several else []
            rows.append([head, *("yes" if part else "no" for part in has), *map(Value.of, means), *of_all])
        blocks.append(Block(METRICS[metric].title, rows))
    last = [f"mean of {len(results.corpora)} benchmarks"] if several else []
    header = ["head", "raw", "LTD", "position", "shared encoder", *results.corpora, *last]
    covered = "; ".join(f"{corpus}: {results.coverage(corpus)}" for corpus in results.corpora)
    notes = [f"Percent, mean over the test sets of each corpus, ± over seeds. {covered}."]
    ranked = range(5, len(header))
    table = Table("Ablation of the LTD head", header, blocks, 5, ranked, block_name="metric", notes=notes)
    return table if len(parts) > 1 else None


def short_metrics(results: Results) -> dict[str, Any]:
    """Return head -> corpus or "corpus/set" -> AP and accuracy (mean, and ``_std`` over seeds), numbers only.

    A corpus has the mean over its test sets, of which ``ap_sets`` of ``sets`` are in that of AP, likewise for accuracy.
    What is undefined is left out.
    """
    short: dict[str, Any] = {}
    for head in results.heads:
        lines: dict[str, dict[str, float]] = {}
        for corpus in results.corpora:
            lines[corpus] = {"sets": len(results.sets_of(corpus))}
            for metric in HEADLINE:
                mean = results.of_corpus(head, metric, corpus)
                lines[corpus] |= {**_numbers(metric, mean), f"{metric}_sets": mean.count}
        for tested, metric in product(results.sets, HEADLINE):
            lines.setdefault(tested.key, {}).update(_numbers(metric, results.of_set(head, tested, metric)))
        short[head] = lines
    return short


def _numbers(metric: str, mean: Mean) -> dict[str, float]:
    pairs = ((metric, mean.value), (f"{metric}_std", mean.std))
    return {name: value for name, value in pairs if value is not None}


def _mean_of_means(means: Sequence[Mean]) -> Value:
    """The mean of the benchmarks' means; undefined where one of them is."""
    values = [mean.value for mean in means if mean.value is not None]
    return Value(sum(values) / len(values) if len(values) == len(means) else None)
