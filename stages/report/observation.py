"""The paper's observation as figures: how the CLS token moves from block to block, reals against each generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.report.figures import Series, common_scale, line_chart
from stages.report.results import place_in
from stages.report.table import Block, Table, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.report.table import Cell

# Column prefix in the profile file -> title, and the least and greatest value that the quantity can have.
_QUANTITIES = {
    "cosine": ("Cosine similarity between adjacent blocks", (-1.0, 1.0)),
    "l2": ("L2 distance between adjacent blocks", (0.0, float("inf"))),
}

# Column of the windows file -> the distance whose AUC it holds.
_AUCS = {"auc_cosine": "cosine distance", "auc_l2": "L2 distance"}

# (label, name of the group) -> one row a transition.
_Groups = dict[tuple[int | None, str], list[dict[str, Any]]]


def observations(
    profiles: Sequence[AnalysisFile], numbers: Iterator[int], order: Sequence[str]
) -> list[dict[str, object]]:
    """Return for every corpus and quantity one figure a generator, with the reals of the corpus in each.

    Args:
        profiles: profile files of the study.
        numbers: gives each figure its number in the page.
        order: generators in the order of the tables; others follow.
    """
    found: list[dict[str, object]] = []
    for profile in profiles:
        groups = _groups(profile, order)
        for column, (title, limits) in _QUANTITIES.items():
            curves = {group: _series(group, rows, column) for group, rows in groups.items()}
            scale = common_scale(list(curves.values()), limits)
            reals = [group for group in groups if group[0] == 0]
            plots = []
            for group in [group for group in groups if group[0] != 0] or reals:
                shown = list(dict.fromkeys([*reals, group]))
                x = [row["transition"] for row in groups[group]]
                text = f"{title}: {' and '.join(curves[one].label for one in shown)}"
                chart = line_chart(text, x, [curves[one] for one in shown], limits=limits, scale=scale)
                detail = ", ".join(f"{groups[one][0]['n']:,} {_word(one)}" for one in shown)
                plots.append({"name": group[1], "detail": detail, "chart": chart, "number": next(numbers)})
            found.append({"title": title, "where": f"{profile.corpus}, view {profile.view}", "plots": plots})
    return found


def transition_table(windows: Sequence[AnalysisFile]) -> Table | None:
    """How well the move between two adjacent blocks tells the classes apart by itself; None without window files."""
    corpora = list(dict.fromkeys(file.corpus for file in windows))
    found: dict[str, dict[int, dict[str, float]]] = {column: {} for column in _AUCS}
    for file in windows:
        for row in file.table.to_pylist():
            if row["generator"] is None and row["blocks"] == 2:
                for column in _AUCS:
                    found[column].setdefault(row["start"], {})[file.corpus] = row[column]
    blocks = []
    for column, title in _AUCS.items():
        rows: list[list[Cell]] = [
            [f"{start} to {start + 1}", *(Value(by_corpus.get(corpus), scale=1, digits=4) for corpus in corpora)]
            for start, by_corpus in sorted(found[column].items())
        ]
        blocks.append(Block(title, rows))
    if not blocks[0].rows:
        return None
    notes = [
        "ROC AUC of the distance that the class token moves between two adjacent blocks, all generators of a corpus "
        "against its real images, without training. Above 0.5 synthetic images move more."
    ]
    return Table(
        "Layer analysis: single transitions", ["transition", *corpora], blocks, block_name="distance", notes=notes
    )


def _groups(profile: AnalysisFile, order: Sequence[str]) -> _Groups:
    groups: _Groups = {}
    for row in sorted(profile.table.to_pylist(), key=lambda row: place_in(order, row["group"])):
        groups.setdefault((row["label"], row["group"]), []).append(row)
    return {group: sorted(rows, key=lambda row: int(row["transition"])) for group, rows in groups.items()}


def _series(group: tuple[int | None, str], rows: list[dict[str, Any]], column: str) -> Series:
    label = "real images" if group[0] == 0 else group[1]
    mean, std = ([row[f"{column}_{statistic}"] for row in rows] for statistic in ("mean", "std"))
    return Series("real" if group[0] == 0 else "fake", label, mean, std)


def _word(group: tuple[int | None, str]) -> str:
    return {0: "real", 1: "synthetic"}.get(-1 if group[0] is None else group[0], "unlabelled")
