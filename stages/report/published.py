"""Published figures beside the numbers measured here, on the very list of test sets that they cover."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from stages.measure.metrics import METRICS
from stages.report.table import Block, Table, Value
from stages.report.tables import PAPER_METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.report.results import NamedSet, Results
    from stages.report.table import Rows

HERE = "measured here"
MARKS = {
    "read": "published",
    "computed": "published, mean computed from the source's own rows or files",
    "secondary": "published, read in a secondary source",
}


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


def elsewhere_table() -> Table:
    """Return how the LTD method did where others trained it: the same data, settings and test sets for every method."""
    content = published()["elsewhere"]
    rows: Rows = [[method, _share(accuracy), _share(ap)] for method, accuracy, ap in content["methods"]]
    notes = [f"Percent. {content['about']} {MARKS[content['mark']]}: {content['source']}."]
    return Table(
        "LTD as others trained it", ["method", "accuracy", "AP"], [Block("", rows)], ranked=(1, 2), notes=notes
    )


def _share(percent: float | None) -> Value | None:
    return None if percent is None else Value(percent / 100)


def _same_benchmark(one: str, other: str) -> bool:
    """Lists of one benchmark begin alike: ufd16 and ufd20 name the same test sets; genimage8's biggan is another."""
    return one.rstrip("0123456789") == other.rstrip("0123456789")
