"""What the place of a folder says of its images: label, generator, split, test sets and category."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stages.scan.found import Folder

REAL_NAMES = frozenset({"real", "0_real", "reals", "real_images", "nature", "natural", "photo", "photos"})
FAKE_NAMES = frozenset({"fake", "1_fake", "fakes", "fake_images", "ai", "synthetic", "generated"})
SPLITS = {
    "train": "train",
    "training": "train",
    "train2017": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "val2017": "val",
    "test": "test",
}
# Folders of benchmarks and of their re-packs -> name of the set in tables.
_OTHER_SPELLINGS = {
    "seeingdark": "sitd",
    "glid": "glide",
    **dict.fromkeys(("stable_diffusion_v_1_4", "sdv14", "sdv4"), "sdv1.4"),
    **dict.fromkeys(("stable_diffusion_v_1_5", "sdv15", "sdv5"), "sdv1.5"),
}


@dataclass(frozen=True)
class Place:
    """What a layout says of all images of a folder.

    Attributes:
        label: 0 real, 1 synthetic, None unknown.
        generator: what made the synthetic images; "" stands for the name of the corpus.
        split: "train", "val", "test", or None where the place does not tell.
        sets: the test sets they belong to by themselves, without the name of their split; "" as above.
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


class Layout(ABC):
    """One way of laying out a corpus.

    Attributes:
        expects: the folders it knows, in one line, for messages.
    """

    expects: str

    @abstractmethod
    def place(self, folder: Folder) -> Place | LeftOut | None:
        """Say what a folder's images are; None where its place does not tell, which is an error or another layout."""


def class_at(folders: Sequence[str]) -> tuple[int, int] | None:
    """Return (position, label) of the deepest folder whose name, in any case, tells a class, or None."""
    for position in range(len(folders) - 1, -1, -1):
        name = folders[position].casefold()
        if name in REAL_NAMES or name in FAKE_NAMES:
            return position, int(name in FAKE_NAMES)
    return None


def set_at(folders: Sequence[str], sets: Collection[str]) -> tuple[int, str] | None:
    """Return (position, name of the set) of the deepest folder that is called like one of ``sets``, or None."""
    for position in range(len(folders) - 1, -1, -1):
        spelled = folders[position].casefold()
        name = _OTHER_SPELLINGS.get(spelled, spelled)
        if name in sets:
            return position, name
    return None


def split_of(folders: Sequence[str]) -> str | None:
    """Return the split that the first folder called like one tells, or None."""
    return next((SPLITS[folder.casefold()] for folder in folders if folder.casefold() in SPLITS), None)


def without_splits(folders: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that are not called like a split."""
    return tuple(folder for folder in folders if folder.casefold() not in SPLITS)


def label_of(text: str) -> int | None:
    """Return the label that a word or a digit in a table tells, or None."""
    word = text.strip().casefold()
    if word in REAL_NAMES or word == "0":
        return 0
    return 1 if word in FAKE_NAMES or word == "1" else None
