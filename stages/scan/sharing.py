"""From what a layout says of single folders to the test sets of the whole corpus: shared reals, splits, filters."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stages.scan.place import Place

SHARED = "@reals"  # the pool of the images below the second root


@dataclass(frozen=True)
class Keep:
    """Which part of a corpus a manifest lists; None keeps everything.

    Attributes:
        sets: test sets, by name; images of none of them are left out.
        splits: "train", "val", "test".
        categories: what is depicted, such as the LSUN classes of ForenSynths.
    """

    sets: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None

    def allows(self, place: Place) -> bool:
        """Tell by split and category whether a folder is listed."""
        return (self.splits is None or place.split in self.splits) and (
            self.categories is None or place.pool == SHARED or place.category in self.categories
        )


def with_sets(places: Sequence[Place], keep: Keep) -> list[Place | None]:
    """Give every folder its final test sets; None where ``keep`` leaves it out.

    Real images of a pool become members of the sets of all synthetic images of their pool and split that have no real
    images of their own; those below the second root, of all sets that are still without. Where a corpus has several
    splits, the test sets are those of its test split, or else of its validation split; the sets of the other splits
    have the split's name in front (``train/progan``), so that no test set holds images to train on. Images in no split
    beside others in one, as in ``ufd/{test,diffusion_datasets}``, belong to the split that is evaluated.
    """
    if all(place.split is None or place.pool == SHARED for place in places):
        places = [replace(place, split=None) for place in places]  # reals of any split, where the root has none
    from storage.manifest import EVALUATION_ORDER  # noqa: PLC0415 - and pyarrow with it, which parameters do without

    divided = {place.split for place in places if place.pool != SHARED}
    evaluation = next((split for split in EVALUATION_ORDER if split in divided), None)
    places = [replace(place, split=place.split or evaluation) for place in places]
    own: dict[str | None, set[str]] = defaultdict(set)  # split -> sets that have real images of their own
    pools: dict[tuple[str | None, str], set[str]] = defaultdict(set)  # (split, pool) -> sets of its synthetic images
    fakes: dict[str | None, set[str]] = defaultdict(set)  # split -> sets of synthetic images
    for place in places:
        if place.label == 0 and place.pool is None:
            own[place.split].update(place.sets)
        elif place.label == 1:
            fakes[place.split].update(place.sets)
            if place.pool is not None:
                pools[place.split, place.pool].update(place.sets)
    supplied: dict[str | None, set[str]] = defaultdict(set)  # what the pools give reals to
    for place in places:
        if place.label == 0 and place.pool not in (None, SHARED):
            supplied[place.split].update(pools[place.split, place.pool])
    final: list[Place | None] = []
    for place in places:
        split, sets = place.split, set(place.sets)
        if place.pool == SHARED and place.label == 0:
            sets = fakes[split] - own[split] - supplied[split]
        elif place.pool is not None and place.label == 0:
            sets = (pools[split, place.pool] - own[split]) or sets
        spelled = [name if split in (None, evaluation) else f"{split}/{name}" for name in sets]
        if keep.sets is not None:
            spelled = [name for name in spelled if name in keep.sets]
        listed = keep.allows(place) and (keep.sets is None or bool(spelled))
        final.append(replace(place, sets=tuple(sorted(spelled))) if listed else None)
    return final


def one_class_sets(places: Collection[Place]) -> dict[str, str]:
    """Return set -> the class it lacks, for the sets with images of one class only."""
    labels: dict[str, set[int]] = defaultdict(set)
    for place in places:
        for name in place.sets:
            if place.label is not None:
                labels[name].add(place.label)
    return {name: "real" if 1 in found else "synthetic" for name, found in sorted(labels.items()) if len(found) == 1}
