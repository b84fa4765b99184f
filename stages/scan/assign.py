"""From what a layout says of single folders to the test sets of the whole corpus: shared reals, splits, filters."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stages.scan.folder import FolderLabels

SHARED = "@reals"  # the pool of the images below the second root


@dataclass(frozen=True)
class Selection:
    """Which part of a corpus a manifest lists; None keeps everything.

    Attributes:
        sets: test sets, by name; images of none of them are left out.
        splits: "train", "val", "test".
        categories: what is depicted, such as the LSUN classes of ForenSynths.
    """

    sets: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None

    def allows(self, labels: FolderLabels) -> bool:
        """Tell by split and category whether a folder is listed."""
        return (self.splits is None or labels.split in self.splits) and (
            self.categories is None or labels.pool == SHARED or labels.category in self.categories
        )


def with_sets(folders: Sequence[FolderLabels], selection: Selection) -> list[FolderLabels | None]:
    """Give every folder its final test sets; None where ``selection`` leaves it out.

    Real images of a pool become members of the sets of all synthetic images of their pool and split that have no real
    images of their own; those below the second root, of all sets that are still without. Where a corpus has several
    splits, the test sets are those of its test split, or else of its validation split; the sets of the other splits
    have the split's name in front (``train/progan``), so that no test set holds images to train on. Images in no split
    beside others in one, as in ``ufd/{test,diffusion_datasets}``, belong to the split that is evaluated.
    """
    if all(labels.split is None or labels.pool == SHARED for labels in folders):
        folders = [replace(labels, split=None) for labels in folders]  # reals of any split, where the root has none
    from storage.manifest import EVALUATION_ORDER  # noqa: PLC0415 - and pyarrow with it, which parameters do without

    divided = {labels.split for labels in folders if labels.pool != SHARED}
    evaluation = next((split for split in EVALUATION_ORDER if split in divided), None)
    folders = [replace(labels, split=labels.split or evaluation) for labels in folders]
    own: dict[str | None, set[str]] = defaultdict(set)  # split -> sets that have real images of their own
    pools: dict[tuple[str | None, str], set[str]] = defaultdict(set)  # (split, pool) -> sets of its synthetic images
    synthetic: dict[str | None, set[str]] = defaultdict(set)  # split -> sets of synthetic images
    for labels in folders:
        if labels.label == 0 and labels.pool is None:
            own[labels.split].update(labels.sets)
        elif labels.label == 1:
            synthetic[labels.split].update(labels.sets)
            if labels.pool is not None:
                pools[labels.split, labels.pool].update(labels.sets)
    supplied: dict[str | None, set[str]] = defaultdict(set)  # split -> sets that pools give reals to
    for labels in folders:
        if labels.label == 0 and labels.pool not in (None, SHARED):
            supplied[labels.split].update(pools[labels.split, labels.pool])
    final: list[FolderLabels | None] = []
    for labels in folders:
        split, sets = labels.split, set(labels.sets)
        if labels.label == 0 and labels.pool == SHARED:
            sets = synthetic[split] - own[split] - supplied[split]
        elif labels.label == 0 and labels.pool is not None:
            sets = (pools[split, labels.pool] - own[split]) or sets
        named = [name if split in (None, evaluation) else f"{split}/{name}" for name in sets]
        if selection.sets is not None:
            named = [name for name in named if name in selection.sets]
        is_listed = selection.allows(labels) and (selection.sets is None or bool(named))
        final.append(replace(labels, sets=tuple(sorted(named))) if is_listed else None)
    return final


def one_class_sets(folders: Collection[FolderLabels]) -> dict[str, str]:
    """Return set -> the class it lacks, for the sets with images of one class only."""
    classes: dict[str, set[int]] = defaultdict(set)
    for labels in folders:
        for name in labels.sets:
            if labels.label is not None:
                classes[name].add(labels.label)
    return {name: "real" if 1 in found else "synthetic" for name, found in sorted(classes.items()) if len(found) == 1}
