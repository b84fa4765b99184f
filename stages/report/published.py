"""Published figures and claims beside the numbers measured here, on the very list of test sets that they cover."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from stages.measure.metrics import METRICS
from stages.report.table import Block, Table, Value, to_markdown
from stages.report.tables import PAPER_METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.report.intervals import Uncertainty
    from stages.report.results import NamedSet, Results
    from stages.report.table import Cell, Rows

HERE = "measured here"
MARKS = {
    "read": "published",
    "computed": "published, mean computed from the source's own rows or files",
    "secondary": "published, read in a secondary source",
}
REPRODUCED, NOT_REPRODUCED = "reproduced within the interval", "not reproduced within the interval"
ONE_SEED = "not compared: outside the interval of one seed"


class Covered(NamedTuple):
    """A named list of test sets that one corpus of the study covers completely: its name and the sets in its order."""

    name: str
    sets: Sequence[NamedSet]


@cache
def published() -> Mapping[str, Any]:
    """Return the data file: means over set lists, single sets, and the paper's ablation and claims; in percent."""
    content: dict[str, Any] = yaml.safe_load(files("stages.report").joinpath("published.yaml").read_text("utf-8"))
    columns = ("method", "trained_on", "accuracy", "ap", "mark", "source", "note")
    means = [
        {"set_list": name, "note": ""} | dict(zip(columns, row, strict=False))
        for name, rows in content["means"].items()
        for row in rows
    ]
    sets = []
    for name, of_list in content["sets"].items():
        for line in of_list["methods"]:
            values = zip(*(line.get(metric, [None] * len(of_list["names"])) for metric in PAPER_METRICS), strict=True)
            pairs = zip(of_list["names"], values, strict=True)
            sets.append(line | {"set_list": name, "values": {s: pair for s, pair in pairs if pair != (None, None)}})
    return content | {"means": means, "sets": sets}


def covered_lists(results: Results, set_lists: Mapping[str, Sequence[str]]) -> list[Covered]:
    """Return the lists whose every member is a test set of one corpus of the study.

    A list that is only a part of another benchmark's list there is none of its own: AIGCDetectBenchmark has sets with
    the names of all of GenImage's, and some of them hold other images.

    Args:
        results: what was measured.
        set_lists: name -> members, in the order of tables.
    """
    covered = []
    for corpus in results.images:
        here = {tested.name: tested for tested in results.sets if tested.corpus == corpus}
        lists = {name: members for name, members in set_lists.items() if members and set(members) <= here.keys()}
        covered += [
            Covered(name, [here[member] for member in members])
            for name, members in lists.items()
            if not any(set(members) < set(lists[other]) and not _same_benchmark(name, other) for other in lists)
        ]
    return covered


def mean_table(results: Results, covered: Covered) -> Table:
    """Means over a list of test sets: heads of this study, then what was published, with the difference.

    The difference is the first head of the study minus the published figure.
    """
    names = [tested.name for tested in covered.sets]
    rows: Rows = []
    first: list[float | None] = []
    for head in results.heads:
        means = [results.of_sets(head, metric, covered.sets) for metric in PAPER_METRICS]
        first = first or [mean.value if mean.count == mean.total else None for mean in means]
        trained_on = {card.facts.get("trained_on") or "not stated" for card in results.cards if card.head == head}
        counts = sorted({mean.count for mean in means})
        partial = f"only {' or '.join(map(str, counts))} of {len(names)} sets are defined"
        note = "" if counts == [len(names)] else partial
        rows.append([head, ", ".join(sorted(trained_on)), *map(Value.of, means), None, None, HERE, note])
    for line in published()["means"]:
        if line["set_list"] == covered.name:
            stated = [_share(line[metric]) for metric in PAPER_METRICS]
            differences = [
                None if mine is None or theirs is None else Value(mine - (theirs.value or 0.0), signed=True)
                for mine, theirs in zip(first, stated, strict=True)
            ]
            source = "; ".join(text for text in (line["source"], line["note"]) if text)
            rows.append([line["method"], line["trained_on"], *stated, *differences, MARKS[line["mark"]], source])
    header = ["method", "trained on", "accuracy", "AP", "accuracy difference", "AP difference", "origin", "source"]
    notes = [
        f"Percent, mean over {covered.name} ({len(names)} sets): {', '.join(names)}.",
        "Difference: the first head of this study minus the published figure, in percentage points. Published figures "
        "come from other training data, augmentation and image sizes than each other: read the sources.",
    ]
    return Table(f"Published and measured: {covered.name}", header, [Block("", rows)], 2, ranked=(2, 3), notes=notes)


def set_table(results: Results, covered: Covered) -> Table | None:
    """Single test sets of a list: heads of this study, then what was published; None where nothing was."""
    names = [tested.name for tested in covered.sets]
    lines = [line for line in published()["sets"] if sum(name in line["values"] for name in names) > 1]
    lines = [line for line in lines if _same_benchmark(line["set_list"], covered.name)]
    blocks = []
    for at, metric in enumerate(PAPER_METRICS):
        rows: Rows = [
            [head, HERE, *(Value(results.of_set(head, tested, metric).value) for tested in covered.sets)]
            for head in results.heads
        ]
        for line in lines:
            values = [_share(line["values"].get(name, (None, None))[at]) for name in names]
            if any(values):
                origin = f"{MARKS[line['mark']]}: {line['source']}"
                rows.append([f"{line['method']} ({line['trained_on']})", origin, *values])
        blocks.append(Block(METRICS[metric].title, rows))
    title, notes = f"Published and measured, set by set: {covered.name}", ["Percent. An empty cell was not published."]
    ranked = range(2, 2 + len(names))
    table = Table(title, ["method", "origin", *names], blocks, 2, ranked, block_name="metric", notes=notes)
    return table if lines else None


def ablation_reference() -> Table:
    """Return the paper's own ablation, to be read beside the study's."""
    content = published()["ablation"]
    rows: Rows = []
    for line in content["rows"]:
        values = [value / 100 for value in line["accuracy"]]
        parts = ("yes" if line[name] else "no" for name in ("raw", "ltd", "position"))
        rows.append([*parts, *map(Value, [*values, sum(values) / len(values)])])
    header = ["raw", "LTD", "position", *content["set_lists"], "mean of the two"]
    notes = [f"Mean accuracy in percent. {MARKS[content['mark']]}: {content['source']}."]
    return Table("Ablation as published", header, [Block("", rows)], 3, ranked=(3, 4, 5), notes=notes)


def reproduction_table(
    results: Results, uncertainty: Uncertainty, set_lists: Mapping[str, Sequence[str]]
) -> Table | None:
    """Compare every published claim that this study tests; None where it tests none.

    A claim is tested when the study has its head, trained on its corpus (names as in ``profiles/paper.yaml``), and a
    corpus with its test sets. Where some of the sets are missing, it is listed and not compared.

    Args:
        results: what was measured.
        uncertainty: its replicates.
        set_lists: name -> members.
    """
    trained = {card.head: card.facts.get("trained_on") for card in results.cards}
    rows: Rows = []
    for claim in published()["claims"]:
        members = set_lists.get(claim["set_list"], ())
        label = f"{claim['head']} ({claim['trained_on']})"
        head = next((name for name in (claim["head"], label) if trained.get(name) == claim["trained_on"]), None)
        # of the corpus that has most of the list
        of_corpora = [[t for t in results.sets if t.corpus == c and t.name in members] for c in results.images]
        sets = max(of_corpora, key=len, default=[])
        if not sets or head not in results.heads:
            continue
        coverage = f"{claim['set_list']}, {len(sets)} of {len(members)} sets"
        for metric in PAPER_METRICS:
            if metric in claim:
                stated = claim[metric] / 100
                here = _beside(stated, uncertainty, head, metric, sets, whole=len(sets) == len(members))
                rows.append([claim["what"], head, coverage, METRICS[metric].title, Value(stated), *here])
    header = ["claim", "head", "test sets", "metric", "published", "here", "low", "high", "difference", "verdict"]
    notes = [
        "Percent. low and high: 95 % interval of the mean over sets and seeds that another training and other test "
        "images may give; with one seed over test images alone, which may confirm a figure and never refutes one.",
        f"Published: {MARKS['secondary']} (LTD paper, arXiv 2603.10598). The authors choose the best epoch on test "
        "images and draw windows at random in evaluation; this study does neither.",
    ]
    return Table("Reproduction of the paper", header, [Block("", rows)], 4, notes=notes) if rows else None


def verdict(table: Table | None) -> str:
    """Say in a sentence how many of the claims are reproduced."""
    if table is None:
        return "This study tests no claim of the paper: it has other heads, training corpora or test sets."
    verdicts = [row[-1] for block in table.blocks for row in block.rows]
    kept, broken = verdicts.count(REPRODUCED), verdicts.count(NOT_REPRODUCED)
    left = len(verdicts) - kept - broken
    if not kept + broken:
        return f"None of {left} figures could be compared; the table says why."
    text = f"{kept} of {kept + broken} compared figures are reproduced within their interval"
    return f"{text}; {left} could not be compared." if left else f"{text}."


def reproduction_page(study: str, table: Table | None, commands: Sequence[str]) -> str:
    """Return REPRODUCTION.md."""
    parts = ["# Reproduction of the LTD paper", f"Made by the report stage of the study `{study}`.", verdict(table)]
    if table is not None:
        parts.append(to_markdown(table).partition("\n\n")[2].rstrip())  # the page has a heading of its own
    typed = [line if line.startswith("#") else f"$ {line}" for line in commands]
    return "\n\n".join([*parts, "To make it again:", "\n".join(["```console", *typed, "```", ""])])


def _beside(
    stated: float, uncertainty: Uncertainty, head: str, metric: str, sets: Sequence[NamedSet], *, whole: bool
) -> list[Cell]:
    """Return the value here, the ends of its interval, the difference, and the verdict."""
    mean = uncertainty.results.of_sets(head, metric, sets)
    if mean.value is None or mean.count < len(sets):
        return [None, None, None, None, f"not compared: defined on {mean.count} of {len(sets)} sets"]
    of_method = uncertainty.of_method(head, metric, sets)
    interval = of_method or uncertainty.of_sets(head, metric, sets)
    verdict = "not compared: no interval" if whole else "not compared: sets are missing"
    if whole and interval is not None:
        # a published figure is rounded to a hundredth of a percent
        inside = interval[0] - 0.5e-4 <= stated <= interval[1] + 0.5e-4
        verdict = REPRODUCED if inside else NOT_REPRODUCED if of_method else ONE_SEED
    ends = [None, None] if interval is None else map(Value, interval)
    return [Value(mean.value), *ends, Value(mean.value - stated, signed=True), verdict]


def _share(percent: float | None) -> Value | None:
    return None if percent is None else Value(percent / 100)


def _same_benchmark(one: str, other: str) -> bool:
    """Lists of one benchmark begin alike: ufd16 and ufd20 name the same test sets; genimage8's biggan is another."""
    return one.rstrip("0123456789") == other.rstrip("0123456789")
