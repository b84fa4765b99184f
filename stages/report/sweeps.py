"""Sweeps of the study as tables and figures: windows, single blocks, and generators held out of training."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from stages.measure.frame import Mean, mean_of
from stages.measure.metrics import METRICS
from stages.report.chart import Curve, line_chart
from stages.report.published import MARKS, published
from stages.report.set_figures import MOST_HEADS
from stages.report.table import Block, Table, Value
from stages.report.tables import PAPER_METRICS
from storage.csv_text import unescaped
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from stages.report.chart import Chart
    from stages.report.results import Results
    from stages.report.table import Rows

    Sweeps = Mapping[str, pd.DataFrame]
    Place = tuple[Any, ...]  # values of the columns that say which heads these are

# Kind of sweep -> the columns of its results that say which head it is.
_COORDINATES = {"window": ["n", "start"], "layer": ["block"], "generators": ["training", "generator", "few"]}


def read_sweeps(files: Mapping[tuple[str, str], Path], results: Results) -> Sweeps:
    """Return kind of sweep -> its rows on the study's test sets, a head, seed and set each.

    ``title`` names the columns of tables: the tested corpus, and what the heads were trained on where that differs.
    ``coverage`` says how many of the corpus's sets have a value for every head: "2 of 3 sets"; rows of others are left
    out. ``files``: (kind, corpus of the training) -> ``results.csv`` of ``ltdpipe sweep``.

    Raises:
        DataError: a file is missing or is no such table.
    """
    frames: dict[str, list[pd.DataFrame]] = defaultdict(list)
    for (kind, trained_on), path in files.items():
        frame = _read(kind, trained_on, path)
        several = len({trained for of_kind, trained in files if of_kind == kind}) > 1
        for corpus in results.corpora:
            here, wanted = frame[frame["corpus"] == corpus], [tested.name for tested in results.sets_of(corpus)]
            heads, sizes = here.groupby([*_COORDINATES[kind], "seed"]).ngroups, here["set"].value_counts()
            covered = [name for name in wanted if sizes.get(name, 0) == heads > 0]
            title, coverage = f"{corpus} ({trained_on})" if several else corpus, f"{len(covered)} of {len(wanted)} sets"
            rows = here[here["set"].isin(covered)]
            frames[kind] += [rows.assign(title=title, trained_on=trained_on, coverage=coverage)] if covered else []
    return {kind: pd.concat(of_kind, ignore_index=True) for kind, of_kind in frames.items() if of_kind}


def _read(kind: str, trained_on: str, path: Path) -> pd.DataFrame:
    """Return a sweep's table: coordinates, ``seed``, ``corpus``, ``set`` and metrics."""
    text = ["corpus", "set", *(["training", "generator"] if kind == "generators" else [])]
    types = dict.fromkeys([*_COORDINATES[kind], "seed"], pa.int64()) | dict.fromkeys(text, pa.string())
    types |= dict.fromkeys([*PAPER_METRICS, *(["seen"] if kind == "generators" else [])], pa.float64())
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
    if kind == "window":
        frame["band"] = pd.array(_bands(frame), dtype="Int64")
    return frame


def _bands(windows: pd.DataFrame) -> list[int | None]:
    """Return the first block of the paper's band that each window lies within, None for windows between.

    None for all where they are not from all blocks of a backbone as deep as the paper's.
    """
    bands = published()["windows"]["bands"]
    first, last = windows["start"], windows["start"] + windows["n"] - 1
    whole = (first.min(), last.max()) == (bands[0][0], bands[-1][1])
    return [
        next((low for low, high in bands if whole and low <= start and end <= high), None)
        for start, end in zip(first, last, strict=True)
    ]


def means_by(sweep: pd.DataFrame, columns: Sequence[str], metric: str) -> dict[str, dict[Place, Mean]]:
    """Return title -> values of ``columns``, ascending -> mean over heads and test sets, with its spread over seeds."""
    found: dict[str, dict[Place, Mean]] = {title: {} for title in sweep["title"].unique()}
    by_seed = sweep.groupby(["title", *columns, "seed"])[metric].agg(fmean)
    for key, values in by_seed.groupby(level=["title", *columns]):
        title, *place = cast("tuple[Any, ...]", key)
        found[title][tuple(place)] = mean_of(values)
    return found


def sweep_tables(sweeps: Sweeps) -> dict[str, Table]:
    """Return name -> table of every sweep that the study has."""
    claim = published()["windows"]
    n, start = claim["length"], claim["start"]
    first, last = claim["candidates"]
    source = f"{MARKS[claim['mark']]}: {claim['source']}."
    tables: dict[str, Table] = {}
    if (frame := sweeps.get("window")) is not None:
        tables["window_length"] = _table(
            "Window length", ["blocks in the window", "starts"], frame, _length_blocks(frame, n),
            "The best start is chosen on the test images themselves: an unattainable upper bound. ± is over seeds.",
            f"As published (ViT-L/14): {n} blocks are best. {source}",
        )  # fmt: skip
        if frame.groupby("title")["band"].count().all():
            bands = dict(claim["bands"])
            blocks = _blocks(
                frame, ["band"], lambda at: [f"{at[0]} to {bands[at[0]]}"], lambda at: "best" * (at[0] == claim["band"])
            )
            note = f"Means over all windows that lie within these blocks, and over seeds. {source}"
            tables["window_bands"] = _table("Shallow, middle and deep blocks", ["blocks"], frame, blocks, note)
        header = ["blocks in the window", "first block", "last block"]
        blocks = _blocks(frame, ["n", "start"], lambda at: [*at, sum(at) - 1], lambda at: "best" * (at == (n, start)))
        note = f"As published (ViT-L/14): blocks {start} to {start + n - 1} are best."
        tables["window_sweep"] = _table("Every window", header, frame, blocks, note)
    if (frame := sweeps.get("layer")) is not None:
        full = frame["block"].nunique() == claim["blocks"]  # the paper's backbone, or one as deep
        blocks = _blocks(frame, ["block"], list, lambda at: "candidate" * (full and first <= at[0] <= last))
        note = (
            "As published (ViT-L/14): the middle blocks tell most; the authors' heads choose their window among "
            f"{first} to {last}. {source}"
        )
        tables["layer_sweep"] = _table("Single blocks: a linear probe on each", ["block"], frame, blocks, note)
    return tables


def _length_blocks(frame: pd.DataFrame, published_best: int) -> list[Block]:
    """Lengths of the window, as means over every start, and at the start that is best on the test images."""
    blocks = []
    for metric in PAPER_METRICS:
        starts = _cells(frame, ["n", "start"], metric)
        mean: Rows = []
        best: Rows = []
        for (n,), values in _cells(frame, ["n"], metric).items():
            of_length = [at_start for place, at_start in starts.items() if place[0] == n]
            row, mark = [n, len(of_length)], "best" if n == published_best else ""
            highest = (max(cells, key=lambda cell: cell.value or 0.0) for cells in zip(*of_length, strict=True))
            mean.append([*row, *values, mark])
            best.append([*row, *highest, mark])
        title = METRICS[metric].title
        blocks += [Block(f"{title}, mean over starts", mean), Block(f"{title}, best start", best)]
    return blocks


def _blocks(
    frame: pd.DataFrame, columns: Sequence[str], names: Callable[[Place], list[Any]], mark: Callable[[Place], str]
) -> list[Block]:
    """A row for each combination of values in ``columns``: what names it, its values, its mark."""
    cells = {metric: _cells(frame, columns, metric) for metric in PAPER_METRICS}
    return [
        Block(METRICS[metric].title, [[*names(place), *values, mark(place)] for place, values in of_metric.items()])
        for metric, of_metric in cells.items()
    ]


def _cells(frame: pd.DataFrame, columns: Sequence[str], metric: str) -> dict[Place, list[Value]]:
    """Return values of ``columns``, ascending -> the value for each title."""
    found, none = means_by(frame, columns, metric).values(), Mean(None, None, 0, 0)
    places = sorted({place for of_title in found for place in of_title})
    return {place: [Value.of(of_title.get(place, none)) for of_title in found] for place in places}


def _table(title: str, header: list[str], frame: pd.DataFrame, blocks: Sequence[Block], *notes: str) -> Table:
    columns = frame.drop_duplicates("title")
    trained, seeds = ", ".join(frame["trained_on"].unique()), frame["seed"].nunique()
    covered = "; ".join(f"{name}: {coverage}" for name, coverage in columns[["title", "coverage"]].to_numpy())
    about = f"Percent, means over test sets and {seeds} seed(s), ± over seeds; heads trained on {trained}. {covered}."
    ranked = range(len(header), len(header) + len(columns))
    return Table(
        title, [*header, *columns["title"], "as published"], blocks, 1, ranked, block_name="metric",
        notes=[about, *notes],
    )  # fmt: skip


def sweep_figures(sweeps: Sweeps) -> dict[str, list[Chart]]:
    """Return kind -> figures: windows by their first block, a line a length; single blocks, a line per corpus."""
    figures: dict[str, list[Chart]] = {}
    for kind, metric in product(sweeps.keys() & {"window", "layer"}, PAPER_METRICS):
        found, label = means_by(sweeps[kind], _COORDINATES[kind], metric), METRICS[metric].heading
        curves: dict[str, list[Curve]] = defaultdict(list)
        for title, means in found.items():
            for group in sorted({place[:-1] for place in means}):
                name = f"{label} of a linear probe on one block" if kind == "layer" else f"{label}, {title}"
                values = {place[-1]: mean.value or 0.0 for place, mean in means.items() if place[:-1] == group}
                best = max(values, key=lambda at: values[at])
                style = f"head-{len(curves[name]) % MOST_HEADS}"
                text, note = f"n = {group[0]}" if group else title, f"at most {100 * values[best]:.2f} %, at {best}"
                curves[name].append(Curve(style, text, list(values), list(values.values()), note=note))
        every = [curve for of_chart in curves.values() for curve in of_chart]
        ends = sorted({x for curve in every for x in curve.x})
        x_scale, least = (ends[0], max(ends[-1], ends[0] + 1)), min(min(curve.y) for curve in every)
        where, y_scale = "block" if kind == "layer" else "first block of the window", (math.floor(least * 10) / 10, 1.0)
        figures.setdefault(kind, []).extend(
            line_chart(name, lines, x_label=where, y_label=f"{label}, %", x_scale=x_scale, y_scale=y_scale)
            for name, lines in curves.items()
        )
    return figures
