"""Two heads, or two studies, side by side on the same images: values, difference and paired tests, set by set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.evaluate.scores import read_card
from stages.measure.bootstrap import REPLICATES
from stages.report.load import head_names, load_results
from stages.report.tables import comparison_table
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.report.table import Table


def run(
    *,
    one: Sequence[Path],
    other: Sequence[Path],
    names: tuple[str, str],
    heads_of: Mapping[Path, str] | None = None,
    set_order: Sequence[str] = (),
    replicates: int = REPLICATES,
) -> Table:
    """Compare what two sides say about the same images.

    Args:
        one: scores files of the one side: of one head, or of all heads of a study.
        other: scores files of the other side.
        names: what the sides are called.
        heads_of: scores file -> what its head is called, where the file does not say it as the study does.
        set_order: test sets, by name or as ``corpus/name``, in the order of the protocol.
        replicates: bootstrap samples.

    Returns:
        Paired tests. Where each side has a single head, these are the pair; else heads of one name are.

    Raises:
        DataError: the sides have no head in common, share a file, or score different images.
    """
    sides = [{path: read_card(path) for path in files} for files in (one, other)]
    if both := sides[0].keys() & sides[1].keys():
        raise DataError(f"{names[0]} and {names[1]} both hold {min(both)}; compare it with other scores")
    # one folder may hold one training more than the other; or each one training, another one
    for called in (head_names(sides[0] | sides[1]), head_names(sides[0]) | head_names(sides[1])):
        heads = [{path: (heads_of or called).get(path, called[path]) for path in side} for side in sides]
        first, second = (sorted(set(of_side.values())) for of_side in heads)
        single = len(first) == len(second) == 1
        pairs = [(first[0], second[0])] if single else [(head, head) for head in first if head in second]
        if pairs:
            break
    else:
        raise DataError(
            f"{names[0]} and {names[1]} have no head in common: {', '.join(first)} and {', '.join(second)}; "
            "compare two heads by name, or two studies with a head of one name"
        )
    labels: dict[Path, str] = {}
    for side, of_files, wanted in zip(names, heads, zip(*pairs, strict=True), strict=True):
        labels |= {path: _label(head, side) for path, head in of_files.items() if head in wanted}
    results = load_results(list(labels), sets=set_order, names=labels, replicates=replicates)
    chosen = [(_label(head, names[0]), _label(against, names[1])) for head, against in pairs]
    return comparison_table(results, chosen, f"{names[0]} against {names[1]}")


def _label(head: str, side: str) -> str:
    return head if head == side else f"{head} ({side})"
