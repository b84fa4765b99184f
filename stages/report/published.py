"""Published figures of the peers beside the numbers measured here, on the very list of test sets that they cover."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml

from stages.report.table import Block, Cell, Table, Value
from stages.report.tables import METRIC_NAMES, scaled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.report.results import NamedSet, Results

HERE = "measured here"
MARKS = {
    "read": "published",
    "computed": "published, mean computed from the source's own rows or files",
    "secondary": "published, read in a secondary source",
}
_METRICS = ("accuracy", "ap")


@dataclass(frozen=True)
class Covered:
    """A named list of test sets that one corpus of the study covers completely: its name and the sets in its order."""

    name: str
    sets: tuple[NamedSet, ...]


@cache
def published() -> Mapping[str, Any]:
    """Return the data file: means over set lists, figures of single sets, and the paper's ablation; in percent."""
    content: dict[str, Any] = yaml.safe_load(files("stages.report").joinpath("published.yaml").read_text("utf-8"))
    return content


def covered_lists(results: Results, set_lists: Mapping[str, Sequence[str]]) -> list[Covered]:
    """Return the lists whose every member is a test set of one corpus of the study.

    A list that is only a part of another benchmark's list there is none of its own: AIGCDetectBenchmark has sets with
    the names of all of GenImage's, and some of them hold other images.

    Args:
        results: what was measured.
        set_lists: name -> members, in the order of tables.
    """
    found = []
    for corpus in results.samples:
        here = {tested.name: tested for tested in results.sets if tested.corpus == corpus}
        lists = {name: members for name, members in set_lists.items() if members and set(members) <= here.keys()}
        found += [
            Covered(name, tuple(here[member] for member in members))
            for name, members in lists.items()
            if not any(set(members) < set(lists[other]) and not _same_benchmark(name, other) for other in lists)
        ]
    return found


def mean_table(results: Results, covered: Covered) -> Table:
    """Means over a list of test sets: heads of this study, then what was published, with the difference.

    The difference is the first head of the study minus the published figure.
    """
    names = [tested.name for tested in covered.sets]
    header = ["method", "trained on", "accuracy", "AP", "accuracy difference", "AP difference", "origin", "source"]
    rows: list[list[Cell]] = []
    ours: list[float | None] = []
    for entry in results.entries:
        means = [results.of_sets(entry, metric, covered.sets) for metric in _METRICS]
        complete = [mean.value if mean.count == mean.total else None for mean in means]
        ours = ours or complete
        cells: list[Cell] = [scaled(mean, metric) for mean, metric in zip(means, _METRICS, strict=True)]
        corpora = {c.facts.get("trained_on") or "not stated" for c in results.cards if c.head == entry.head}
        trained = ", ".join(sorted(corpora))
        counts = sorted({mean.count for mean in means})
        note = (
            "" if counts == [len(names)] else f"only {' or '.join(map(str, counts))} of {len(names)} sets are defined"
        )
        rows.append([entry.head, trained, *cells, None, None, HERE, note])
    for line in published()["means"]:
        if line["set_list"] == covered.name:
            values = [_share(line.get(metric)) for metric in _METRICS]
            differences: list[Cell] = [
                None if mine is None or value is None else Value(mine - value, signed=True)
                for mine, value in zip(ours, values, strict=True)
            ]
            source = "; ".join(text for text in (line["source"], line.get("note", "")) if text)
            cells = [None if value is None else Value(value) for value in values]
            row: list[Cell] = [line["method"], line["trained_on"], *cells, *differences]
            rows.append([*row, MARKS[line["mark"]], source])
    notes = [
        f"Percent, mean over {covered.name} ({len(names)} sets): {', '.join(names)}.",
        "Difference: the first head of this study minus the published figure, in percentage points. Published figures "
        "come from other training data, augmentation and image sizes than each other: read the sources.",
    ]
    ranked = frozenset({2, 3})
    return Table(f"Published and measured: {covered.name}", header, [Block("", rows)], 2, ranked, notes=notes)


def set_table(results: Results, covered: Covered) -> Table | None:
    """Single test sets of a list: heads of this study, then what was published; None where nothing was."""
    names = [tested.name for tested in covered.sets]
    lines = [line for line in published()["sets"] if sum(name in line["values"] for name in names) > 1]
    lines = [line for line in lines if _same_benchmark(line["set_list"], covered.name)]
    blocks = []
    for at, metric in enumerate(_METRICS):
        rows: list[list[Cell]] = []
        for entry in results.entries:
            values = [scaled(results.of_set(entry, tested, metric), metric, spread=False) for tested in covered.sets]
            rows.append([entry.head, HERE, *values])
        for line in lines:
            found = [_share((line["values"].get(name) or (None, None))[at]) for name in names]
            if any(value is not None for value in found):
                cells: list[Cell] = [None if value is None else Value(value) for value in found]
                origin = f"{MARKS[line['mark']]}: {line['source']}"
                rows.append([f"{line['method']} ({line['trained_on']})", origin, *cells])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    ranked = frozenset(range(2, 2 + len(names)))
    title = f"Published and measured, set by set: {covered.name}"
    notes = ["Percent. An empty cell was not published."]
    header = ["method", "origin", *names]
    table = Table(title, header, blocks, 2, ranked, block_name="metric", notes=notes)
    return table if lines else None


def ablation_reference() -> Table:
    """Return the paper's own ablation, to be read beside the study's."""
    content = published()["ablation"]
    rows: list[list[Cell]] = []
    for line in content["rows"]:
        parts: list[Cell] = ["yes" if line[name] else "no" for name in ("raw", "ltd", "position")]
        values = [value / 100 for value in line["accuracy"]]
        rows.append([*parts, *(Value(value) for value in values), Value(sum(values) / len(values))])
    header = ["raw", "LTD", "position", *content["set_lists"], "mean of the two"]
    notes = [f"Mean accuracy in percent. {MARKS[content['mark']]}: {content['source']}."]
    return Table("Ablation as published", header, [Block("", rows)], 3, frozenset({3, 4, 5}), notes=notes)


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _same_benchmark(one: str, other: str) -> bool:
    """Lists of one benchmark begin alike: ufd16 and ufd20 name the same test sets; genimage8's biggan is another."""
    return one.rstrip("0123456789") == other.rstrip("0123456789")
