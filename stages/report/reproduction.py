"""Is the paper reproduced? Its claims, one by one, beside what this study measured on the same test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.report.published import MARKS, published
from stages.report.results import Entry
from stages.report.table import Block, Cell, Table, Value
from stages.report.tables import METRIC_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.report.intervals import Uncertainty
    from stages.report.results import NamedSet, Results

_METRICS = ("accuracy", "ap")
REPRODUCED, NOT_REPRODUCED = "reproduced within the interval", "not reproduced within the interval"


def reproduction_table(
    results: Results, uncertainty: Uncertainty, set_lists: Mapping[str, Sequence[str]]
) -> Table | None:
    """Compare every published claim that this study tests; None where it tests none.

    A claim is tested when the study has its head, trained on its corpus (names as in ``profiles/paper.yaml``), and a
    corpus with its test sets. Where some of the sets are missing, it is listed and not compared.

    Args:
        results: what was measured.
        uncertainty: its replicates.
        set_lists: name -> members.
    """
    trained = {card.head: card.facts.get("trained_on") for card in results.cards}
    rows: list[list[Cell]] = []
    for claim in published()["claims"]:
        members = set_lists.get(claim["set_list"], ())
        label = f"{claim['head']} ({claim['trained_on']})"
        head = next((name for name in (claim["head"], label) if trained.get(name) == claim["trained_on"]), None)
        sets = _present(results, members)
        if head is None or not sets or Entry(head) not in results.entries:
            continue
        coverage = f"{claim['set_list']}, {len(sets)} of {len(members)} sets"
        for metric in _METRICS:
            if claim.get(metric) is not None:
                stated = claim[metric] / 100
                start: list[Cell] = [claim["what"], head, coverage, METRIC_NAMES[metric], Value(stated)]
                complete = len(sets) == len(members)
                rows.append([*start, *_verdict(results, uncertainty, Entry(head), sets, metric, stated, complete)])
    if not rows:
        return None
    header = ["claim", "head", "test sets", "metric", "published", "here", "low", "high", "difference", "verdict"]
    notes = [
        "Percent. low and high: 95 % bootstrap interval over test images of the mean over sets and seeds; it does not "
        "hold the spread between trainings.",
        f"Published: {MARKS['secondary']} (LTD paper, arXiv 2603.10598). The authors choose the best epoch on test "
        "images and draw windows at random in evaluation; this study does neither.",
    ]
    return Table("Reproduction of the paper", header, [Block("", rows)], 4, frozenset(), notes=notes)


def reproduction_page(study: str, table: Table | None, markdown: str, commands: Sequence[str]) -> str:
    """Return REPRODUCTION.md."""
    lines = ["# Reproduction of the LTD paper", "", f"Made by the report stage of the study `{study}`.", ""]
    if table is None:
        lines.append("This study tests no claim of the paper: it has other heads, training corpora or test sets.")
    else:
        body = markdown.partition("\n\n")[2].rstrip()  # the page has a heading of its own
        verdicts = [str(row[-1]) for block in table.blocks for row in block.rows]
        kept, broken = (sum(verdict == wanted for verdict in verdicts) for wanted in (REPRODUCED, NOT_REPRODUCED))
        lines += [f"{kept} of {kept + broken} compared figures are reproduced within their interval.", "", body]
    typed = [line if line.startswith("#") else f"$ {line}" for line in commands]
    lines += ["", "To make it again:", "", "```console", *typed, "```", ""]
    return "\n".join(lines)


def _present(results: Results, members: Sequence[str]) -> list[NamedSet]:
    """The members of a list that one corpus of the study has, of the corpus that has most of them."""
    found = [[t for t in results.sets if t.corpus == corpus and t.name in members] for corpus in results.samples]
    return max(found, key=len, default=[])


def _verdict(  # noqa: PLR0917 - one row of one table
    results: Results,
    uncertainty: Uncertainty,
    entry: Entry,
    sets: Sequence[NamedSet],
    metric: str,
    stated: float,
    complete: bool,
) -> list[Cell]:
    mean = results.of_sets(entry, metric, sets)
    interval = uncertainty.of_sets(entry, metric, sets)
    if mean.value is None or mean.count < len(sets):
        return [None, None, None, None, f"not compared: defined on {mean.count} of {len(sets)} sets"]
    here: list[Cell] = [Value(mean.value)]
    here += [None, None] if interval is None else [Value(end) for end in interval]
    here.append(Value(mean.value - stated, signed=True))
    if not complete or interval is None:
        return [*here, "not compared: sets are missing" if not complete else "not compared: no interval"]
    # a published figure is rounded to a hundredth of a percent
    inside = interval[0] - 0.5e-4 <= stated <= interval[1] + 0.5e-4
    return [*here, REPRODUCED if inside else NOT_REPRODUCED]
