"""Sweeps of the study: window lengths, single windows and single blocks, with what the paper says of them."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv

from stages.measure.frame import mean_of
from stages.measure.metrics import METRICS
from stages.report.chart import Curve, line_chart
from stages.report.published import MARKS, published
from stages.report.set_figures import MOST_HEADS
from stages.report.table import Block, Table, Value
from stages.report.tables import PAPER_METRICS
from storage.csv_text import unescaped
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from stages.report.results import Results
    from stages.report.svg import Chart
    from stages.report.table import Rows

_COORDINATES = {"window": ["n", "start"], "layer": ["block"]}


class Column(NamedTuple):
    """One curve of a sweep: heads trained on one corpus and scored on another.

    Attributes:
        title: what it is called.
        trained_on: corpus of the training.
        coverage: how many of the study's sets of the tested corpus are in the means: "2 of 3 sets".
        means: (coordinates of a head, seed), ascending -> mean over those sets, a column a metric.
    """

    title: str
    trained_on: str
    coverage: str
    means: pd.DataFrame

    def at(self, metric: str, *place: int) -> Value:
        """Return the mean over sets and seeds of a head, with its spread over seeds."""
        try:
            return Value.of(mean_of(self.means[metric].loc[place]))
        except KeyError:
            return Value(None)


def read_sweeps(files: Mapping[tuple[str, str], Path], results: Results) -> dict[str, list[Column]]:
    """Return kind of sweep -> its columns, where it has any.

    Args:
        files: (kind, corpus of the training) -> ``results.csv`` of ``ltdpipe sweep``.
        results: names the test sets whose mean is taken, as in all other tables.

    Raises:
        DataError: a file is missing or is no such table.
    """
    columns: dict[str, list[Column]] = defaultdict(list)
    for (kind, trained_on), path in files.items():
        frame, heads = _read(kind, trained_on, path), [*_COORDINATES[kind], "seed"]
        several = len({trained for of_kind, trained in files if of_kind == kind}) > 1
        for corpus in results.corpora:
            here = frame[frame["corpus"] == corpus]
            wanted, sizes = [tested.name for tested in results.sets_of(corpus)], here["set"].value_counts()
            covered = [name for name in wanted if sizes.get(name, 0) == here.groupby(heads).ngroups]
            means = here[here["set"].isin(covered)].groupby(heads)[list(PAPER_METRICS)].agg(fmean)
            if covered:
                title = f"{corpus} ({trained_on})" if several else corpus
                columns[kind].append(Column(title, trained_on, f"{len(covered)} of {len(wanted)} sets", means))
    return dict(columns)


def _read(kind: str, trained_on: str, path: Path) -> pd.DataFrame:
    """Return a sweep's table: coordinates, ``seed``, ``corpus``, ``set`` and metrics."""
    text = ["corpus", "set"]
    types = dict.fromkeys([*_COORDINATES[kind], "seed"], pa.int64()) | dict.fromkeys(text, pa.string())
    types |= dict.fromkeys(PAPER_METRICS, pa.float64())
    try:
        if not path.read_bytes().endswith(b"\n"):
            raise ValueError("its end is missing")
        table = pa_csv.read_csv(
            path,
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
    except FileNotFoundError as error:
        command = f"ltdpipe sweep {kind} --trained-on {trained_on}"
        raise DataError(f"{path} does not exist; run `{command}`, or `dvc repro`") from error
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is no table of `ltdpipe sweep {kind}`: {error}; delete it and sweep again") from error
    frame: pd.DataFrame = table.to_pandas()
    frame[text] = frame[text].map(unescaped)
    return frame


def sweep_tables(sweeps: Mapping[str, Sequence[Column]]) -> dict[str, Table]:
    """Return name -> table of every sweep that the study has."""
    tables: dict[str, Table] = {}
    claim = published()["windows"]
    n, start = claim["length"], claim["start"]
    first, last = claim["candidates"]
    source = f"{MARKS[claim['mark']]}: {claim['source']}."
    if columns := sweeps.get("window"):
        notes = [
            "The best start is chosen on the test images themselves: an unattainable upper bound. ± is over seeds.",
            f"As published (ViT-L/14): {n} blocks are best. {source}",
        ]
        header = ["blocks in the window", "starts"]
        tables["window_length"] = _table("Window length", header, columns, _length_blocks(columns, n), notes)
        places = _places(columns)
        lines = [([*place, sum(place) - 1], place, "best" if place == (n, start) else "") for place in places]
        header = ["blocks in the window", "first block", "last block"]
        notes = [f"As published (ViT-L/14): blocks {start} to {start + n - 1} are best."]
        tables["window_sweep"] = _table("Every window", header, columns, _place_blocks(columns, lines), notes)
    if columns := sweeps.get("layer"):
        places = _places(columns)
        full = len(places) == claim["blocks"]  # the paper's backbone, or one as deep
        lines = [([*place], place, "candidate" if full and first <= place[0] <= last else "") for place in places]
        notes = [
            "As published (ViT-L/14): the middle blocks tell most; the authors' heads choose their window among "
            f"{first} to {last}. {source}"
        ]
        title = "Single blocks: a linear probe on each"
        tables["layer_sweep"] = _table(title, ["block"], columns, _place_blocks(columns, lines), notes)
    return tables


def _length_blocks(columns: Sequence[Column], published_best: int) -> list[Block]:
    """Lengths of the window, as means over every start, and at the start that is best on the test images."""
    starts: dict[int, list[int]] = defaultdict(list)
    for n, start in _places(columns):
        starts[n].append(start)
    blocks = []
    for metric in PAPER_METRICS:
        mean: Rows = []
        best: Rows = []
        for n, of_n in starts.items():
            mark = "best" if n == published_best else ""
            of_length = [column.means.loc[column.means.index.get_level_values("n") == n, metric] for column in columns]
            # the spread over seeds is that of the mean over starts
            over_starts = [mean_of(values.groupby("seed").agg(fmean)) for values in of_length]
            mean.append([n, len(of_n), *map(Value.of, over_starts), mark])
            of_starts = ([column.at(metric, n, start) for start in of_n] for column in columns)
            best.append([n, len(of_n), *(max(values, key=lambda at: at.value or 0.0) for values in of_starts), mark])
        title = METRICS[metric].title
        blocks += [Block(f"{title}, mean over starts", mean), Block(f"{title}, best start", best)]
    return blocks


def _place_blocks(columns: Sequence[Column], lines: Sequence[tuple[list[int], tuple[int, ...], str]]) -> list[Block]:
    """A row per head: the numbers that name it, its values, its mark."""
    return [
        Block(
            METRICS[metric].title,
            [[*names, *(column.at(metric, *place) for column in columns), mark] for names, place, mark in lines],
        )
        for metric in PAPER_METRICS
    ]


def _table(
    title: str, header: list[str], columns: Sequence[Column], blocks: Sequence[Block], notes: Sequence[str]
) -> Table:
    seeds = max(column.means.index.get_level_values("seed").nunique() for column in columns)
    trained = ", ".join(dict.fromkeys(column.trained_on for column in columns))
    covered = "; ".join(f"{column.title}: {column.coverage}" for column in columns)
    about = f"Percent, means over test sets and {seeds} seed(s), ± over seeds; heads trained on {trained}. {covered}."
    ranked = range(len(header), len(header) + len(columns))
    names = [*header, *(column.title for column in columns), "as published"]
    return Table(title, names, blocks, 1, ranked, block_name="metric", notes=[about, *notes])


def sweep_figures(sweeps: Mapping[str, Sequence[Column]]) -> dict[str, list[Chart]]:
    """Return kind -> figures: windows by their first block, a line a length; single blocks, a line per corpus."""
    figures: dict[str, list[Chart]] = {}
    for kind, columns in sweeps.items():
        figures[kind] = []
        for metric in PAPER_METRICS:
            label = METRICS[metric].heading
            groups: dict[str, list[Curve]] = defaultdict(list)
            for number, column in enumerate(columns):
                means = column.means[metric].groupby(_COORDINATES[kind]).agg(fmean)
                if kind == "layer":
                    groups[f"{label} of a linear probe on one block"].append(_curve(number, column.title, means))
                else:
                    for at, (n, of_length) in enumerate(means.groupby("n")):
                        groups[f"{label}, {column.title}"].append(_curve(at, f"n = {n}", of_length.droplevel("n")))
            where = "block" if kind == "layer" else "first block of the window"
            least = min(value for curves in groups.values() for curve in curves for value in curve.y)
            ends = [place[-1] for place in _places(columns)]
            x_scale, y_scale = (min(ends), max(*ends, min(ends) + 1)), (math.floor(least * 10) / 10, 1.0)
            for name, curves in groups.items():
                chart = line_chart(
                    name, curves, x_label=where, y_label=f"{label}, %", x_scale=x_scale, y_scale=y_scale
                )  # fmt: skip
                figures[kind].append(chart)
    return figures


def _curve(number: int, label: str, means: pd.Series[float]) -> Curve:
    note = f"at most {100 * means.max():.2f} %, at {means.idxmax()}"
    return Curve(f"head-{number % MOST_HEADS}", label, means.index.tolist(), means.tolist(), note=note)


def _places(columns: Sequence[Column]) -> list[tuple[int, ...]]:
    return sorted({tuple(place[:-1]) for column in columns for place in column.means.index})
