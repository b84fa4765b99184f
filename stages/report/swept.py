"""What the study's sweeps found: window lengths, single windows and single blocks, with what the paper says of them."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from stages.evaluate.means import Mean, mean_of
from stages.report.published import MARKS, published
from stages.report.table import Block, Cell, Table, Value
from stages.report.tables import METRIC_NAMES
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.report.results import Results

KINDS = {"window": ("n", "start"), "layer": ("block",)}
SWEPT_METRICS = ("accuracy", "ap")

# Where a head lies in its sweep: (n, first block), or (block,).
Place = tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """One curve of a sweep: heads trained on one corpus and scored on another.

    Attributes:
        trained_on: corpus of the training.
        corpus: corpus of the test sets.
        sets: how many of the study's sets of that corpus are in the means, of how many.
        means: metric -> place in the sweep -> mean over those sets, and its spread over seeds.
        by_seed: the same with the means of each seed, in order of the seeds.
    """

    trained_on: str
    corpus: str
    sets: tuple[int, int]
    means: Mapping[str, Mapping[Place, Mean]]
    by_seed: Mapping[str, Mapping[Place, Sequence[float]]]


@dataclass(frozen=True)
class Sweep:
    """A kind of sweep over all corpora that heads are trained on."""

    kind: str
    columns: tuple[Column, ...]

    @property
    def places(self) -> list[Place]:
        """All places, in order."""
        return sorted({place for column in self.columns for place in column.means["ap"]})

    def title(self, column: Column) -> str:
        """What a column is called: its corpus, and that of the training where there are several."""
        several = len({column.trained_on for column in self.columns}) > 1
        return f"{column.corpus} ({column.trained_on})" if several else column.corpus


def read_sweeps(files: Mapping[tuple[str, str], Path], results: Results) -> dict[str, Sweep]:
    """Return kind -> sweep.

    Args:
        files: (kind, corpus of the training) -> ``results.csv`` of ``ltdpipe sweep``.
        results: names the test sets whose mean is taken, as in all other tables.

    Raises:
        DataError: a file is missing or is no such table.
    """
    columns: dict[str, list[Column]] = defaultdict(list)
    for (kind, trained_on), path in files.items():
        columns[kind] += _columns(kind, trained_on, path, results)
    return {kind: Sweep(kind, tuple(found)) for kind, found in columns.items() if found}


def sweep_tables(sweeps: Mapping[str, Sweep]) -> dict[str, Table]:
    """Return name -> table of every sweep that the study has."""
    tables: dict[str, Table] = {}
    if "window" in sweeps:
        tables |= {
            "window_length": window_length_table(sweeps["window"]),
            "window_sweep": window_table(sweeps["window"]),
        }
    if "layer" in sweeps:
        tables["layer_sweep"] = layer_table(sweeps["layer"])
    return tables


def window_length_table(sweep: Sweep) -> Table:
    """Lengths of the window, as means over every start, and at the start that is best on the test images."""
    claim = published()["windows"]
    lengths = sorted({n for n, _ in sweep.places})
    blocks = []
    for metric in SWEPT_METRICS:
        for best in (False, True):
            rows: list[list[Cell]] = []
            for n in lengths:
                places = [place for place in sweep.places if place[0] == n]
                values: list[Cell] = [_of_length(column, metric, places, best=best) for column in sweep.columns]
                rows.append([n, len(places), *values, "best" if n == claim["length"] else ""])
            blocks.append(Block(f"{METRIC_NAMES[metric]}, {'best start' if best else 'mean over starts'}", rows))
    header = ["blocks in the window", "starts", *map(sweep.title, sweep.columns), "as published"]
    notes = [
        *_notes(sweep),
        "The best start is chosen on the very images that it is tested on: nobody has it. ± is over seeds.",
        f"As published (ViT-L/14): {claim['length']} blocks are best. {MARKS[claim['mark']]}: {claim['source']}.",
    ]
    ranked = frozenset(range(2, 2 + len(sweep.columns)))
    return Table("Window length", header, blocks, 1, ranked, block_name="metric", notes=notes)


def window_table(sweep: Sweep) -> Table:
    """Every window by itself."""
    claim = published()["windows"]
    best = (claim["length"], claim["start"])
    rows = {place: [place[0], place[1], place[1] + place[0] - 1] for place in sweep.places}
    marks = {place: "best" if place == best else "" for place in sweep.places}
    header = ["blocks in the window", "first block", "last block"]
    note = f"As published (ViT-L/14): blocks {best[1]} to {sum(best) - 1} are best."
    return _place_table("Every window", sweep, header=header, rows=rows, marks=marks, note=note)


def layer_table(sweep: Sweep) -> Table:
    """A linear probe on every block."""
    claim = published()["windows"]
    first, last = claim["candidates"]
    full = len(sweep.places) == claim["blocks"]  # the paper's backbone, or one as deep
    marks = {place: "candidate" if full and first <= place[0] <= last else "" for place in sweep.places}
    rows = {place: [place[0]] for place in sweep.places}
    note = (
        f"As published (ViT-L/14): the middle blocks tell most; the authors' heads choose their window among "
        f"{first} to {last}. {MARKS[claim['mark']]}: {claim['source']}."
    )
    return _place_table(
        "Single blocks: a linear probe on each", sweep, header=["block"], rows=rows, marks=marks, note=note
    )


def _place_table(
    title: str,
    sweep: Sweep,
    *,
    header: list[str],
    rows: Mapping[Place, Sequence[Cell]],
    marks: Mapping[Place, str],
    note: str,
) -> Table:
    nothing = Mean(None, None, 0, 0)
    blocks = []
    for metric in SWEPT_METRICS:
        found: list[list[Cell]] = []
        for place, start in rows.items():
            means = [column.means[metric].get(place, nothing) for column in sweep.columns]
            found.append([*start, *(Value(mean.value, mean.std) for mean in means), marks[place]])
        blocks.append(Block(METRIC_NAMES[metric], found))
    ranked = frozenset(range(len(header), len(header) + len(sweep.columns)))
    header = [*header, *map(sweep.title, sweep.columns), "as published"]
    return Table(title, header, blocks, 1, ranked, block_name="metric", notes=[*_notes(sweep), note])


def _notes(sweep: Sweep) -> list[str]:
    covered = [f"{sweep.title(column)}: {column.sets[0]} of {column.sets[1]} sets" for column in sweep.columns]
    seeds = max(mean.total for column in sweep.columns for mean in column.means["ap"].values())
    trained = ", ".join(dict.fromkeys(column.trained_on for column in sweep.columns))
    return [
        f"Percent, means over test sets and {seeds} seed(s), ± over seeds; heads trained on {trained}. "
        f"{'; '.join(covered)}."
    ]


def _of_length(column: Column, metric: str, places: Sequence[Place], *, best: bool) -> Value:
    """The best window of a length, or the mean over its windows with the spread over seeds of that mean."""
    means = {place: column.means[metric][place] for place in places if place in column.means[metric]}
    if not means:
        return Value(None)
    if best:
        mean = max(means.values(), key=lambda mean: -1.0 if mean.value is None else mean.value)
    else:
        mean = mean_of(
            [mean_of(seeds).value for seeds in zip(*(column.by_seed[metric][p] for p in means), strict=True)]
        )
    return Value(mean.value, mean.std)


def _columns(kind: str, trained_on: str, path: Path, results: Results) -> list[Column]:
    names = KINDS[kind]
    measured: dict[str, dict[tuple[Place, int], dict[str, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                at = tuple(int(row[name]) for name in names), int(row["seed"])
                values = {metric: float(row[metric]) for metric in SWEPT_METRICS}
                measured[row["corpus"]][at][row["set"]] = values
    except FileNotFoundError as error:
        command = f"ltdpipe sweep {kind} --trained-on {trained_on}"
        raise DataError(f"{path} does not exist; run `{command}`, or `dvc repro`") from error
    except (KeyError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table of `ltdpipe sweep {kind}`: {error}; delete it and sweep again") from error
    columns = []
    for corpus in dict.fromkeys(tested.corpus for tested in results.sets):
        wanted = [tested.name for tested in (*results.sets, *results.missing) if tested.corpus == corpus]
        runs = measured.get(corpus, {})
        covered = [name for name in wanted if runs and all(name in sets for sets in runs.values())]
        if not covered:
            continue
        by_seed: dict[str, dict[Place, list[float]]] = {metric: defaultdict(list) for metric in SWEPT_METRICS}
        for (place, _), sets in sorted(runs.items()):
            for metric in SWEPT_METRICS:
                by_seed[metric][place].append(fmean(sets[name][metric] for name in covered))
        means = {
            metric: {place: mean_of(values) for place, values in found.items()} for metric, found in by_seed.items()
        }
        columns.append(Column(trained_on, corpus, (len(covered), len(wanted)), means, by_seed))
    return columns
