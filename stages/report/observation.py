"""The paper's observation: how the CLS token moves from block to block, and how each window of blocks separates."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stages.analyse.files import (
    PROFILE_SCHEMA,
    PROJECTION_SCHEMA,
    WINDOW_SCHEMA,
    projection_path,
    read_analysis,
    windows_path,
)
from stages.report.chart import Curve, common_scale, heat_map, line_chart
from stages.report.load import place_in
from stages.report.table import Block, Table, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.analyse.files import AnalysisFile
    from stages.evaluate.scores import ScoreCard
    from stages.report.chart import Chart
    from stages.report.results import Results
    from stages.report.table import Rows

# Column prefix in the profile file -> title, name of the axis, and the least and greatest value there can be.
_QUANTITIES = {
    "cosine": ("Cosine similarity between adjacent blocks", "cosine similarity", (-1.0, 1.0)),
    "l2": ("L2 distance between adjacent blocks", "L2 distance", (0.0, float("inf"))),
    "attention": (
        "Divergence of attention between adjacent blocks",
        "Jensen-Shannon divergence in bits",
        (0.0, float("inf")),
    ),
}

# Column of the windows file -> the distance whose AUC it holds.
_DISTANCES = {"auc_cosine": "cosine distance", "auc_l2": "L2 distance"}

# Label -> style class, name of the curves, and word for its images.
_CLASSES = {
    0: ("real", "real images", "real"),
    1: ("fake", "synthetic images", "synthetic"),
    None: ("fake", "unlabelled images", "unlabelled"),
}


class Analyses(NamedTuple):
    """What the analyse stage wrote for the corpora of the study; each may be empty."""

    profiles: Sequence[AnalysisFile]
    windows: Sequence[AnalysisFile]
    projections: Sequence[AnalysisFile]


def read_analyses(profile_files: Sequence[Path]) -> Analyses:
    """Read profile files, and the windows and projections that lie beside them."""
    files = [
        [read_analysis(path, PROFILE_SCHEMA) for path in profile_files],
        [read_analysis(path, WINDOW_SCHEMA) for path in map(windows_path, profile_files) if path.exists()],
        [read_analysis(path, PROJECTION_SCHEMA) for path in map(projection_path, profile_files) if path.exists()],
    ]
    return Analyses(*(sorted(of_kind, key=lambda file: (file.corpus, file.view)) for of_kind in files))


def transition_figures(profiles: Sequence[AnalysisFile], results: Results) -> dict[tuple[str, str], list[Chart]]:
    """Return (quantity, corpus and view) -> a figure per generator, with the reals of the corpus in each."""
    figures = {}
    for profile in profiles:
        groups = _grouped(profile, ["label", "group"], results)
        reals = [group for group in groups if group[0] == 0]
        for column, (title, unit, limits) in _QUANTITIES.items():
            if f"{column}_mean" not in profile.table.column_names:
                continue  # the tap is off by default
            curves = {}
            for (label, name), rows in groups.items():
                x, y, std = ([row[key] for row in rows] for key in ("transition", f"{column}_mean", f"{column}_std"))
                kind, real_images, _ = _CLASSES[label]
                curves[label, name] = Curve(kind, real_images if label == 0 else name, x, y, std)
            scale = common_scale(curves.values(), limits)
            charts = []
            for group in [group for group in groups if group[0] != 0] or reals:
                shown = list(dict.fromkeys([*reals, group]))
                drawn = [curves[one] for one in shown]
                chart = line_chart(
                    f"{title}: {' and '.join(curve.label for curve in drawn)}", drawn,
                    x_label="transition k (block k to block k + 1)", y_label=unit,
                    x_scale=(drawn[0].x[0], max(drawn[0].x[-1], drawn[0].x[0] + 1)), y_scale=scale, limits=limits,
                )  # fmt: skip
                detail = ", ".join(f"{groups[one][0]['n']:,} {_CLASSES[one[0]][2]}" for one in shown)
                charts.append(chart.captioned(group[1], detail))
            figures[title, f"{profile.corpus}, view {profile.view}"] = charts
    return figures


def transition_table(windows: Sequence[AnalysisFile]) -> Table | None:
    """How well the move between two adjacent blocks tells the classes apart by itself; None without window files."""
    corpora = list(dict.fromkeys(file.corpus for file in windows))
    rows = [(file.corpus, row) for file in windows for row in file.table.to_pylist()]
    single = {(corpus, row["start"]): row for corpus, row in rows if row["generator"] is None and row["blocks"] == 2}
    blocks = []
    for column, title in _DISTANCES.items():
        lines: Rows = []
        for start in sorted({start for _, start in single}):
            aucs = (single.get((corpus, start), {}).get(column) for corpus in corpora)
            lines.append([f"{start} to {start + 1}", *(Value(auc, scale=1, digits=4) for auc in aucs)])
        blocks.append(Block(title, lines))
    notes = [
        "ROC AUC of the distance that the class token moves between two adjacent blocks, all generators of a corpus "
        "against its real images, without training. Above 0.5 synthetic images move more."
    ]
    header = ["transition", *corpora]
    table = Table("Layer analysis: single transitions", header, blocks, block_name="distance", notes=notes)
    return table if single else None


def selection_table(results: Results) -> Table | None:
    """Held-out loss of every window that a head chose among by it; None without such a head."""
    blocks = {}
    for card in results.cards:
        if selection := card.facts.get("window_selection"):
            lines: Rows = []
            for window in selection["windows"]:
                start, losses = window["start"], window["held_out_losses"]
                fate = "dropped in doubt" if start in selection.get("dropped_in_doubt", ()) else ""
                fate = "chosen" if start in _window_starts(card) else fate
                epochs, loss = selection["epochs"][len(losses) - 1], Value(losses[-1], scale=1, digits=4)
                lines.append([f"{start} to {start + card.facts['window'] - 1}", fate, epochs, loss])
            title = f"{card.head}, seed {card.seed}"
            blocks[title] = Block(title, lines)
    notes = [
        "Every window trains a head of its own; the loss on images held out of training drops and chooses windows. It "
        "is that of the epoch that would be kept, after as many epochs as the window was trained for. From half of the "
        "epochs on only the best five are trained; others that were not clearly worse were dropped in doubt."
    ]
    header = ["blocks", "", "epochs", "held-out loss"]
    title = "Windows chosen by held-out loss"
    return Table(title, header, list(blocks.values()), 2, block_name="head", notes=notes) if blocks else None


def window_figures(windows: Sequence[AnalysisFile], results: Results) -> list[Chart]:
    """Heat maps of how well each window separates, all generators together and each; chosen windows are framed."""
    figures = []
    for file in windows:
        groups = _grouped(file, ["generator"], results)
        for (generator,), rows in groups.items():
            name = generator or "all generators"
            for column, distance in _DISTANCES.items():
                if column == "auc_l2" and generator is not None and len(groups) > 2:
                    continue  # the other distance of each generator is in tables/windows.csv
                chart = window_map(
                    f"AUC of the mean {distance} over a window, {name}", rows, column, chosen_windows(results)
                )
                detail = f"{distance}; {rows[0]['n_real']:,} real, {rows[0]['n_fake']:,} synthetic; {file.corpus}"
                figures.append(chart.captioned(name, detail))
    return figures


def window_map(
    title: str, rows: Sequence[Mapping[str, Any]], column: str, read: Sequence[tuple[int, int, str]]
) -> Chart:
    """Lay out AUCs, ``column`` of ``rows`` of a windows file, by first block and length; ``read`` by heads: framed."""
    starts, lengths = ({row[key] for row in rows} for key in ("start", "blocks"))

    def place(start: int, n: int) -> tuple[int, int]:
        return start - min(starts), n - min(lengths)

    cells = {
        place(row["start"], row["blocks"]): (
            row[column],
            f"blocks {row['start']} to {row['start'] + row['blocks'] - 1}",
        )
        for row in rows
    }
    owners: dict[tuple[int, int], list[str]] = defaultdict(list)
    for start, n, owner in read:
        owners[place(start, n)].append(owner)
    auc, where = max(cells.values(), key=lambda cell: abs(cell[0] - 0.5))
    return heat_map(
        title, cells,
        x_names=[str(start) for start in range(min(starts), max(starts) + 1)],
        y_names=[str(n) for n in range(min(lengths), max(lengths) + 1)],
        x_label="first block of the window", y_label="blocks in the window", quantity="AUC",
        words=f"Separates best: {where}, AUC {auc:.3f}.",
        frames={at: f"read by {', '.join(names)}" for at, names in owners.items()}, framed="read by a head",
    )  # fmt: skip


def chosen_windows(results: Results) -> list[tuple[int, int, str]]:
    """Return (first block, n, head and seed) of every window that a head reads."""
    windows = {
        (start, card.facts["window"], f"{card.head}, seed {card.seed}")
        for card in results.cards
        for start in _window_starts(card)
        if card.facts.get("window") is not None
    }
    return sorted(windows)


def _window_starts(card: ScoreCard) -> list[int]:
    starts = (card.facts.get(name) for name in ("window_start", "window_start_2"))
    return [start for start in starts if start is not None]


def projection_figures(projections: Sequence[AnalysisFile]) -> list[Chart]:
    """Two clouds a corpus: raw tokens, and their differences."""
    figures = []
    for file in projections:
        rows = file.table.to_pylist()
        if not rows:
            continue
        blocks = file.facts["blocks"]
        where = f"blocks {blocks[0]} to {blocks[-1]}, {len(rows):,} images; {file.corpus}"
        for column, title in (("raw", "Raw features"), ("ltd", "Transition features (LTD)")):
            places = np.array([(row[f"{column}_x"], row[f"{column}_y"]) for row in rows])
            (left, low), (right, high) = places.min(axis=0).tolist(), places.max(axis=0).tolist()
            clouds = []
            for label, kind in ((1, "fake"), (0, "real"), (None, "other")):
                x, y = places[[row["label"] == label for row in rows]].T.tolist()
                if x:
                    clouds.append(Curve(kind, _CLASSES[label][1], x, y, note=f"{len(x):,}", dots=True))
            share = 100 * sum(file.facts["explained"][column])
            chart = line_chart(
                f"{title}, first two principal components", clouds, x_label="first component",
                y_label="second component", x_scale=(left, right), y_scale=(low, max(high, low + 1)),
                limits=(-np.inf, np.inf),
            )  # fmt: skip
            figures.append(chart.captioned(title, f"{share:.0f} % of the variance; {where}"))
    return figures


def _grouped(
    file: AnalysisFile, columns: Sequence[str], results: Results
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return the values of ``columns``, a generator last -> their rows, in the order of the tables; "all" is first."""
    order = [tested.name for tested in results.sets]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in file.table.to_pylist():
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: -1 if item[0][-1] is None else place_in(order, item[0][-1])))
