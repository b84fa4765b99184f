"""What a layout is, and what it says of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from stages.scan.classes import class_at, split_of

if TYPE_CHECKING:
    from stages.scan.found import Folder


@dataclass(frozen=True)
class Place:
    """What a layout says of all images of a folder.

    Attributes:
        label: 0 real, 1 synthetic, None unknown.
        generator: what made the synthetic images.
        split: "train", "val", "test", or None where the place does not tell.
        sets: the test sets they belong to by themselves, without the name of their split.
        category: what is depicted, where the layout tells.
        pool: real images of a pool belong to all test sets of the synthetic images of the same pool and split that have
            no real images of their own; ``sets`` is used where there are none.
    """

    label: int | None
    generator: str | None = None
    split: str | None = None
    sets: tuple[str, ...] = ()
    category: str | None = None
    pool: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """Images that are no part of the corpus, and what they are counted as."""

    kind: str


class Layout(Protocol):
    """One way of laying out a corpus.

    Attributes:
        expects: the folders it knows, in one line, for messages.
    """

    expects: str

    def place(self, folder: Folder, corpus: str) -> Place | LeftOut | None:
        """Say what a folder's images are; None where its place does not tell, which is an error or another layout."""


def place_shared(folder: Folder, *, needs_split: bool = False) -> Place | LeftOut | None:
    """Say what the images below the second root are: real, for all sets of their split without reals of their own.

    Args:
        folder: a folder below the second root.
        needs_split: whether images in other folders than those of a split are left out, as MSCOCO's unlabelled ones.
    """
    found = class_at(folder.folders)
    if found is not None and found[1] == 1:
        return None
    split = split_of(folder.folders)
    if needs_split and split is None and folder.folders:
        return LeftOut("shared real image outside train2017 and val2017")
    return Place(0, split=split, pool="@reals")


def known_at(folders: tuple[str, ...], keys: dict[str, str]) -> tuple[int, str] | None:
    """Return (position, key) of the deepest folder that ``keys`` (name in lower case -> key) knows, or None."""
    for position in range(len(folders) - 1, -1, -1):
        key = keys.get(folders[position].casefold())
        if key is not None:
            return position, key
    return None
