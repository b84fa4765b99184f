"""Generators held out of training, from ``ltdpipe sweep generators``: a table, and heat maps of each corpus."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, cast

from stages.measure.frame import mean_of
from stages.measure.metrics import METRICS
from stages.report.chart import NAMES_END, heat_map
from stages.report.table import Block, Table, Value
from stages.report.tables import PAPER_METRICS

if TYPE_CHECKING:
    import pandas as pd

    from stages.report.chart import Chart
    from stages.report.sweeps import Sweeps
    from stages.report.table import Rows

    # (training, generator, few), then (title, set) -> the rows of all seeds
    Found = dict[tuple[str, str, int], dict[tuple[str, str], pd.DataFrame]]


def generator_table(sweeps: Sweeps) -> Table | None:
    """Values of each head on each test set, and their mean over the sets whose generators it has not seen."""
    if "generators" not in sweeps:
        return None
    frame, found = sweeps["generators"], _found(sweeps["generators"])
    sets = list(dict.fromkeys(place for of_head in found.values() for place in of_head))
    blocks = []
    for metric in PAPER_METRICS:
        for training in dict.fromkeys(of for of, _, _ in found):
            rows: Rows = []
            for (of, generator, few), values in found.items():
                if of == training:
                    cells = [
                        Value.of(mean_of(values[place][metric])) if place in values else Value(None) for place in sets
                    ]
                    unseen = [place for place, rows_of_set in values.items() if not rows_of_set["seen"].any()]
                    by_seed = zip(*(values[place][metric] for place in unseen), strict=True)
                    mean = Value.of(mean_of(map(fmean, by_seed)))
                    rows.append([generator, few or None, *cells, mean, len(unseen)])
            blocks.append(Block(f"{METRICS[metric].title}, {training}", rows))
    several = frame["title"].nunique() > 1
    header = ["generator", "images of it", *(f"{title}: {name}" if several else name for title, name in sets)]
    notes = [
        f"Percent, means over {frame['seed'].nunique()} seed(s), ± over seeds; heads trained on parts of "
        f"{', '.join(frame['trained_on'].unique())}. The last columns: the mean over the sets without an image of any "
        "generator that trained the head, and their number.",
        "Generators are told apart by name; names of one generator in several benchmarks count as one. Real images are "
        "thinned as the synthetic ones are, so the classes keep their balance and a head without a generator has fewer "
        "images of both.",
    ]
    header += ["mean of unseen", "unseen sets"]
    title = "Generators held out of training"
    return Table(title, header, blocks, ranked=range(2, len(header) - 1), block_name="training", notes=notes)


def generator_figures(sweeps: Sweeps) -> list[Chart]:
    """Heads by test sets, for each part of the generators that trained several heads: heat maps of AP."""
    if "generators" not in sweeps:
        return []
    figures = []
    for key, frame in sweeps["generators"].groupby(["title", "training"], sort=False):
        found, sets = _found(frame), frame["set"].unique().tolist()
        if len(found) == 1:
            continue
        cells, frames = {}, {}
        for row, ((_, generator, _), of_head) in enumerate(found.items()):
            for (_, name), rows in of_head.items():
                at = sets.index(name), row
                cells[at] = fmean(rows["ap"]), f"{generator}, tested on {name}"
                if rows["seen"].any():
                    frames[at] = "trained on it"
        unseen = [value for at, (value, _) in cells.items() if at not in frames]
        mean = f"Mean AP on generators not seen: {100 * fmean(unseen):.2f} %. " if unseen else ""
        columns = ", ".join(f"{number} {name}" for number, name in enumerate(sets, 1))
        names = (f"{generator} {few or ''}".rstrip() for _, generator, few in found)
        title, training = cast("tuple[str, str]", key)
        figures.append(
            heat_map(
                f"AP after training on {training}, {title}", cells,
                x_names=[str(number) for number in range(1, len(sets) + 1)],
                y_names=[name if len(name) <= 20 else f"{name[:19]}…" for name in names],
                x_label="test set", y_label="generator", quantity="AP", left=NAMES_END,
                words=f"{mean}Columns: {columns}.", frames=frames, framed="of a generator that trained the head",
            )
        )  # fmt: skip
    return figures


def _found(frame: pd.DataFrame) -> Found:
    found: Found = {}
    for key, rows in frame.groupby(["training", "generator", "few", "title", "set"], sort=False):
        training, generator, few, title, name = cast("tuple[str, str, int, str, str]", key)
        found.setdefault((training, generator, few), {})[title, name] = rows.sort_values("seed")
    return found
