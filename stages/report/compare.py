"""Two heads, or two studies, side by side on the same images: values, difference and paired tests, set by set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.evaluate.scores import read_card
from stages.measure.bootstrap import REPLICATES
from stages.measure.metrics import METRICS
from stages.report.intervals import resample
from stages.report.results import head_names, load_results
from stages.report.table import Block, Table, Value
from stages.report.tables import COMPARISON_NOTE
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.report.table import Rows


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
        A block per pair of heads. Where each side has a single head, these are the pair; else heads of one name are.

    Raises:
        DataError: the sides have no head in common, or score different images.
    """
    sides = [{path: read_card(path) for path in files} for files in (one, other)]
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
    results = load_results(list(labels), sets=set_order, names=labels)
    chosen = [(_label(head, names[0]), _label(against, names[1])) for head, against in pairs]
    uncertainty = resample(results, heads=[head for pair in chosen for head in pair], replicates=replicates)
    columns = results.column_names()
    blocks: dict[tuple[str, str], Rows] = {pair: [] for pair in chosen}
    for each in uncertainty.compare(chosen):
        means = (Value.of(results.of_set(head, each.tested, each.metric)) for head in (each.head, each.other))
        place = (columns[each.tested], METRICS[each.metric].title)
        blocks[each.head, each.other].append([*place, *means, *each.cells])
    header = ["set", "metric", "first", "second", "difference", "low", "high", "p", "p_holm", "of"]
    family = f"p_holm: Holm-corrected over all {sum(map(len, blocks.values()))} tests of this table."
    notes = ["Percent, means over seeds.", COMPARISON_NOTE, family]
    of_pairs = [Block(f"{head} against {against}", rows) for (head, against), rows in blocks.items()]
    return Table(f"{names[0]} against {names[1]}", header, of_pairs, 2, block_name="pair", notes=notes)


def _label(head: str, side: str) -> str:
    return head if head == side else f"{head} ({side})"
