"""The result tables of a study, of measured numbers alone, and what metrics.json holds."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.measure.metrics import METRICS, shown_in
from stages.report.results import NOT_SCORED, NamedSet
from stages.report.table import Block, Table, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.measure.frame import Mean
    from stages.report.intervals import Uncertainty
    from stages.report.results import Results
    from stages.report.table import Cell

# Those that papers publish, in the order of their tables and of published.yaml.
PAPER_METRICS = ("accuracy", "ap")
HEADLINE = shown_in("headline")

COMPARISON_NOTE = (
    "difference: first minus other in percentage points, means over seeds, with its 95 % interval (low, high); p: of "
    "no difference. Both hold the paired spread over images and, of methods, that over seeds; where a head has one "
    "seed they are of these weights, not of the methods."
)


def main_table(results: Results, title: str) -> Table:
    """Heads by sets: AP and accuracies, means over seeds; for each corpus the mean over its sets and their number."""
    names = results.column_names()
    header = ["head", "seeds", *names.values()]
    for corpus in results.corpora:
        of = f"{corpus}: " if len(results.corpora) > 1 else ""
        header += [f"{of}{name}" for name in ("mean", "mean_std", "sets_in_mean", "sets")]
    blocks = []
    for metric in shown_in("main"):
        rows: list[Sequence[Cell]] = []
        for head in results.heads:
            values: list[Cell] = [Value(results.of_set(head, tested, metric).value) for tested in names]
            for mean in (results.of_corpus(head, metric, corpus) for corpus in results.corpora):
                std = None if mean.std is None else Value(mean.std)
                values += [Value(mean.value), std, mean.count, mean.total]
            rows.append([head, len(results.seeds(head)), *values])
        blocks.append(Block(METRICS[metric].title, rows))
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
        rows.append([head, *tested, *results.size(tested), metric, *numbers,
                     results.why_undefined(head, tested, metric)])  # fmt: skip
    notes = ["low and high: 95 % interval over images of the mean over seeds; std: over seeds."]
    return Table("Every metric of every head and test set", header, [Block("", rows)], text_columns=3, notes=notes)


def per_seed_table(results: Results) -> Table:
    """Every metric of every head, seed, view and set, one seed a row; an undefined one is an empty cell."""
    frame = results.frame[results.frame["why"] != NOT_SCORED].astype({"n_real": int, "n_fake": int})
    order = {tested: place for place, tested in enumerate(results.sets)}
    frame["order"] = [order[NamedSet(*pair)] for pair in zip(frame["corpus"], frame["set"], strict=True)]
    places = ["head", "view", "order", "seed", "corpus", "set", "n_real", "n_fake"]
    wide = frame.pivot(index=places, columns="metric", values="value")[list(METRICS)].sort_index().reset_index()
    wide["view"] = wide["view"].where(wide["view"] != "", wide["corpus"].map(lambda name: results.samples[name].view))
    wide = wide.drop(columns="order").astype(object).where(wide.notna(), None)
    header = ["head", "view", "seed", "corpus", "set", "n_real", "n_fake", *METRICS]
    rows = wide[header].to_numpy().tolist()
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
        place = (each.head, each.other, names[each.tested], METRICS[each.metric].title)
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
        blocks.append(Block(METRICS[metric].title, rows))
    last = [f"mean of {len(results.corpora)} benchmarks"] if several else []
    header = ["head", "raw", "LTD", "position", *results.corpora, *last]
    covered = "; ".join(f"{corpus}: {results.coverage(corpus)}" for corpus in results.corpora)
    notes = [f"Percent, mean over the test sets of each corpus, ± over seeds. {covered}."]
    ranked = range(4, len(header))
    table = Table("Ablation of the LTD head", header, blocks, 4, ranked, block_name="metric", notes=notes)
    return table if found else None


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


def full_metrics(results: Results, uncertainty: Uncertainty) -> dict[str, Any]:
    """Return head -> "corpus/set" -> metric -> mean, std, 95 % interval, per seed and, where undefined, the reason."""
    full: dict[str, Any] = {head: {} for head in results.heads}
    for head, tested in product(results.heads, results.sets):
        n_real, n_fake = results.size(tested)
        line: dict[str, Any] = {"n_real": n_real, "n_fake": n_fake}
        full[head][tested.key] = line
        for metric in METRICS:
            mean = results.of_set(head, tested, metric)
            values = zip(results.seeds(head), results.values(head, tested, metric), strict=True)
            line[metric] = {
                "mean": mean.value,
                "std": mean.std,
                "interval": uncertainty.of_set(head, tested, metric),
                "seeds": {str(seed): None if pd.isna(value) else value for seed, value in values},
            }
            if why := results.why_undefined(head, tested, metric):
                line[metric]["undefined"] = why
    return full


def _numbers(metric: str, mean: Mean) -> dict[str, float]:
    pairs = ((metric, mean.value), (f"{metric}_std", mean.std))
    return {name: value for name, value in pairs if value is not None}


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
