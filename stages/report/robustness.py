"""What degraded images cost: metrics over views such as ``jpeg-70`` or ``blur-2``, beside those of the clean view."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.evaluate.means import Mean
from stages.evaluate.scores import MATCHED
from stages.report.results import Entry
from stages.report.table import Block, Cell, Table, Value
from stages.report.tables import METRIC_NAMES, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.report.results import NamedSet, Results

ROBUST_METRICS = ("ap", "accuracy")

_VIEW = re.compile(r"^([a-z]+)-(\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Family:
    """A kind of degradation.

    Attributes:
        kind: what view names begin with.
        title: what it is called.
        clean: the strength that would change nothing.
        falling: whether a smaller number degrades more.
        paper: the range of strengths that the paper plots, if it does.
    """

    kind: str
    title: str
    clean: float
    falling: bool
    paper: tuple[float, float] | None = None


FAMILIES = (
    Family("jpeg", "JPEG quality", 100, falling=True, paper=(60, 100)),
    Family("webp", "WebP quality", 100, falling=True),
    Family("blur", "Gaussian blur, sigma in pixels", 0, falling=False),
    Family("scale", "Downscaling, factor", 1, falling=True, paper=(0.5, 1.0)),
    Family("noise", "Gaussian noise, sigma", 0, falling=False),
)


@dataclass(frozen=True)
class Degradation:
    """Views of one kind, from the weakest to the strongest: (view, strength)."""

    family: Family
    views: tuple[tuple[str, float], ...]


def degradations(results: Results) -> list[Degradation]:
    """Return the kinds of degradation that the study has views of."""
    found = []
    for family in FAMILIES:
        parsed = ((view, match) for view in results.views if (match := _VIEW.match(view)) and match[1] == family.kind)
        views = sorted(((view, float(match[2])) for view, match in parsed), key=lambda item: item[1])
        if views:
            found.append(Degradation(family, tuple(reversed(views) if family.falling else views)))
    return found


def others(results: Results) -> list[str]:
    """Return the views of no single kind: several degradations at once."""
    known = {view for degradation in degradations(results) for view, _ in degradation.views}
    return [view for view in results.views if view not in known]


def robustness_table(results: Results, *, paper: bool = False) -> Table | None:
    """Means over sets for every head and view, and what is lost against the clean view; None without such views.

    Args:
        results: what was measured.
        paper: only the views on the grid that the paper plots (JPEG 60..100, scale 0.5..1.0).
    """
    blocks = []
    for metric in ROBUST_METRICS:
        rows: list[list[Cell]] = []
        for entry in results.entries:
            clean = results.of_sets(entry, metric)
            for kind, view, strength in _listed(results, paper=paper):
                degraded = Entry(entry.head, view)
                if view and degraded not in results.measured:
                    continue
                mean = results.of_sets(degraded, metric) if view else clean
                start: list[Cell] = [entry.head, kind, view or "clean", strength]
                rows.append([*start, scaled(mean, metric), _loss(results, degraded, metric), mean.count, mean.total])
        blocks.append(Block(METRIC_NAMES[metric], rows))
    if not any(row[2] != "clean" for row in blocks[0].rows):
        return None
    header = ["head", "degradation", "view", "strength", "mean", "relative to clean", "sets_in_mean", "sets"]
    notes = ["Percent, mean over test sets, ± over seeds; relative to clean in percentage points, over the same sets."]
    title = f"Robustness{' on the grid of the paper' if paper else ''}"
    return Table(title, header, blocks, text_columns=3, block_name="metric", notes=notes)


def _listed(results: Results, *, paper: bool) -> list[tuple[str, str, float | None]]:
    """Return (degradation, view, strength), the clean view first under an empty name."""
    rows: list[tuple[str, str, float | None]] = [("none", "", None)]
    for degradation in degradations(results):
        family = degradation.family
        for view, strength in degradation.views:
            if not paper or (family.paper and family.paper[0] <= strength <= family.paper[1]):
                rows.append((family.kind, view, strength))
    return rows if paper else [*rows, *((_kind_of(view), view, None) for view in others(results))]


def _loss(results: Results, degraded: Entry, metric: str) -> Value:
    """The difference to the clean view, both as means over the sets that are defined in both for all seeds."""

    def covered(entry: Entry) -> set[NamedSet]:
        means = {tested: results.of_set(entry, tested, metric) for tested in results.sets}
        return {tested for tested, mean in means.items() if mean.value is not None and mean.count == mean.total}

    clean = Entry(degraded.head)
    common = sorted(covered(degraded) & covered(clean))
    values = [results.of_sets(entry, metric, common).value for entry in (degraded, clean)]
    if values[0] is None or values[1] is None:
        return Value(None)
    return Value(values[0] - values[1], signed=True)


def series(results: Results, head: str, degradation: Degradation, metric: str) -> Sequence[Mean]:
    """Return the means over sets of a head: clean first, then each view of a degradation."""
    means = [results.of_sets(Entry(head), metric)]
    empty = Mean(None, None, 0, len(results.sets))
    for view, _ in degradation.views:
        entry = Entry(head, view)
        means.append(results.of_sets(entry, metric) if entry in results.measured else empty)
    return means


def _kind_of(view: str) -> str:
    """What the table calls a view that is no single degradation."""
    return "files alike" if view.startswith(MATCHED) else "several"
