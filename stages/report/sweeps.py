"""What the study's sweeps found: window lengths, single windows and single blocks, with what the paper says of them."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv

from stages.measure.frame import mean_of
from stages.measure.metrics import METRICS
from stages.report.figures import Curve, curve_chart
from stages.report.published import MARKS, published
from stages.report.set_figures import MOST_HEADS
from stages.report.table import Block, Table, Value
from stages.report.tables import PAPER_METRICS
from storage.csv_text import unescaped
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from stages.report.chart import Chart
    from stages.report.results import Results
    from stages.report.table import Cell

_COORDINATES = {"window": ["n", "start"], "layer": ["block"]}

# Where a head lies in its sweep: (n, first block), or (block,).
Place = tuple[int, ...]


class Column(NamedTuple):
    """One curve of a sweep: heads trained on one corpus and scored on another.

    Attributes:
        trained_on: corpus of the training.
        corpus: corpus of the test sets.
        coverage: how many of the study's sets of that corpus are in the means: "2 of 3 sets".
        by_seed: metric -> place in the sweep -> mean over those sets for each seed, in order of the seeds.
    """

    trained_on: str
    corpus: str
    coverage: str
    by_seed: Mapping[str, Mapping[Place, Sequence[float]]]

    def at(self, metric: str, place: Place) -> Value:
        """Return the mean over sets and seeds of a place, with its spread over seeds."""
        return Value.of(mean_of(self.by_seed[metric].get(place, ())))


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
        frame, place = _read(kind, trained_on, path), _COORDINATES[kind]
        for corpus in results.corpora:
            here = frame[frame["corpus"] == corpus]
            heads, sizes = here.groupby([*place, "seed"]).ngroups, here["set"].value_counts()
            wanted = [tested.name for tested in results.sets_of(corpus)]
            covered = [name for name in wanted if sizes.get(name, 0) == heads > 0]
            if not covered:
                continue
            rows = here[here["set"].isin(covered)]
            means = rows.groupby([*place, "seed"])[list(PAPER_METRICS)].agg(fmean)
            by_seed: dict[str, dict[Place, list[float]]] = {metric: defaultdict(list) for metric in PAPER_METRICS}
            for (*at, _), *values in means.itertuples():
                for metric, value in zip(PAPER_METRICS, values, strict=True):
                    by_seed[metric][tuple(at)].append(value)
            columns[kind].append(Column(trained_on, corpus, f"{len(covered)} of {len(wanted)} sets", by_seed))
    return dict(columns)


def _read(kind: str, trained_on: str, path: Path) -> pd.DataFrame:
    """Return a sweep's table: coordinates, ``seed``, ``corpus``, ``set`` and metrics."""
    text, numbers = ["corpus", "set"], list(PAPER_METRICS)
    types = dict.fromkeys([*_COORDINATES[kind], "seed"], pa.int64())
    types |= dict.fromkeys(text, pa.string()) | dict.fromkeys(numbers, pa.float64())
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
    source = f"{MARKS[claim['mark']]}: {claim['source']}."
    if columns := sweeps.get("window"):
        notes = [
            "The best start is chosen on the very images that it is tested on: nobody has it. ± is over seeds.",
            f"As published (ViT-L/14): {n} blocks are best. {source}",
        ]
        blocks = list(_length_blocks(columns, n))
        tables["window_length"] = _table("Window length", ["blocks in the window", "starts"], columns, blocks, notes)
        lines = {place: ([*place, sum(place) - 1], "best" if place == (n, start) else "") for place in _places(columns)}
        header = ["blocks in the window", "first block", "last block"]
        notes = [f"As published (ViT-L/14): blocks {start} to {start + n - 1} are best."]
        tables["window_sweep"] = _table("Every window", header, columns, _place_blocks(columns, lines), notes)
    if columns := sweeps.get("layer"):
        first, last = claim["candidates"]
        places = _places(columns)
        full = len(places) == claim["blocks"]  # the paper's backbone, or one as deep
        lines = {place: ([*place], "candidate" if full and first <= place[0] <= last else "") for place in places}
        notes = [
            "As published (ViT-L/14): the middle blocks tell most; the authors' heads choose their window among "
            f"{first} to {last}. {source}"
        ]
        title = "Single blocks: a linear probe on each"
        tables["layer_sweep"] = _table(title, ["block"], columns, _place_blocks(columns, lines), notes)
    return tables


def _length_blocks(columns: Sequence[Column], published_best: int) -> Iterator[Block]:
    """Lengths of the window, as means over every start, and at the start that is best on the test images."""
    by_length: dict[int, list[Place]] = defaultdict(list)
    for place in _places(columns):
        by_length[place[0]].append(place)
    for metric in PAPER_METRICS:
        for best in (False, True):
            rows: list[Sequence[Cell]] = []
            for n, places in by_length.items():
                values = [_of_length(column, metric, places, best=best) for column in columns]
                rows.append([n, len(places), *values, "best" if n == published_best else ""])
            yield Block(f"{METRICS[metric].title}, {'best start' if best else 'mean over starts'}", rows)


def _of_length(column: Column, metric: str, places: Sequence[Place], *, best: bool) -> Value:
    """The best window of a length, or the mean over its windows with the spread over seeds of that mean."""
    found = [place for place in places if place in column.by_seed[metric]]
    if best:
        return max((column.at(metric, place) for place in found), key=lambda at: at.value or 0.0, default=Value(None))
    of_seeds = zip(*(column.by_seed[metric][place] for place in found), strict=True)
    return Value.of(mean_of(mean_of(values).value or 0.0 for values in of_seeds))


def _place_blocks(columns: Sequence[Column], lines: Mapping[Place, tuple[Sequence[int], str]]) -> list[Block]:
    """A row a place: its ``lines`` begin with numbers and end with a mark."""
    return [
        Block(
            METRICS[metric].title,
            [[*numbers, *(column.at(metric, place) for column in columns), mark]
             for place, (numbers, mark) in lines.items()],
        )
        for metric in PAPER_METRICS
    ]  # fmt: skip


def _table(
    title: str, header: list[str], columns: Sequence[Column], blocks: Sequence[Block], notes: Sequence[str]
) -> Table:
    titles = _titles(columns)
    seeds = max(len(values) for column in columns for values in column.by_seed["ap"].values())
    trained = ", ".join(dict.fromkeys(column.trained_on for column in columns))
    covered = "; ".join(f"{name}: {column.coverage}" for name, column in zip(titles, columns, strict=True))
    about = f"Percent, means over test sets and {seeds} seed(s), ± over seeds; heads trained on {trained}. {covered}."
    ranked = range(len(header), len(header) + len(columns))
    names = [*header, *titles, "as published"]
    return Table(title, names, blocks, 1, ranked, block_name="metric", notes=[about, *notes])


def sweep_figures(sweeps: Mapping[str, Sequence[Column]]) -> dict[str, list[Chart]]:
    """Return kind -> figures: windows by their first block, a line a length; single blocks, a line a corpus."""
    figures: dict[str, list[Chart]] = {}
    for kind, columns in sweeps.items():
        figures[kind] = []
        for metric in PAPER_METRICS:
            label = METRICS[metric].heading
            groups: dict[str, list[Curve]] = defaultdict(list)
            for number, (column, title) in enumerate(zip(columns, _titles(columns), strict=True)):
                values = {place: column.at(metric, place).value or 0.0 for place in column.by_seed[metric]}
                if kind == "layer":
                    groups[f"{label} of a linear probe on one block"].append(_curve(number, title, values))
                else:
                    for at, n in enumerate(sorted({n for n, _ in values})):
                        of_length = {place: value for place, value in values.items() if place[0] == n}
                        groups[f"{label}, {title}"].append(_curve(at, f"n = {n}", of_length))
            least = min(value for curves in groups.values() for curve in curves for value in curve.y)
            ends = [place[-1] for place in _places(columns)]
            x_scale = (min(ends), max(*ends, min(ends) + 1))
            where = "block" if kind == "layer" else "first block of the window"
            for name, curves in groups.items():
                y_scale = (math.floor(least * 10) / 10, 1.0)
                y_label = f"{label}, %"
                chart = curve_chart(name, curves, x_label=where, y_label=y_label, x_scale=x_scale, y_scale=y_scale)
                figures[kind].append(chart)
    return figures


def _curve(number: int, label: str, values: Mapping[Place, float]) -> Curve:
    """A curve over the last coordinate of a sweep."""
    x, y = [place[-1] for place in values], list(values.values())
    note = f"at most {100 * max(y):.2f} %, at {x[y.index(max(y))]}"
    return Curve(f"head-{number % MOST_HEADS}", label, x, y, note=note)


def _places(columns: Sequence[Column]) -> list[Place]:
    return sorted({place for column in columns for place in column.by_seed["ap"]})


def _titles(columns: Sequence[Column]) -> list[str]:
    """What columns are called: their corpus, and that of the training where there are several."""
    several = len({column.trained_on for column in columns}) > 1
    return [f"{column.corpus} ({column.trained_on})" if several else column.corpus for column in columns]
