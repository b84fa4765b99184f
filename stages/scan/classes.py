"""Names that tell a class or a split, in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
# The split that test sets are made of, where a corpus has several: the first of these that it has.
EVALUATION_ORDER = ("test", "val", "train")


def class_at(folders: Sequence[str]) -> tuple[int, int] | None:
    """Return (position, label) of the deepest folder whose name tells a class, or None."""
    for position in range(len(folders) - 1, -1, -1):
        name = folders[position].casefold()
        if name in REAL_NAMES or name in FAKE_NAMES:
            return position, int(name in FAKE_NAMES)
    return None


def split_of(folders: Sequence[str]) -> str | None:
    """Return the split that the first folder called like one tells, or None."""
    return next((SPLITS[folder.casefold()] for folder in folders if folder.casefold() in SPLITS), None)


def label_of(text: str) -> int | None:
    """Return the label that a word or a digit in a table tells, or None."""
    word = text.strip().casefold()
    if word in REAL_NAMES or word == "0":
        return 0
    return 1 if word in FAKE_NAMES or word == "1" else None
