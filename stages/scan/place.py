"""What the place of a folder says of its images: label, generator, split, test sets and category."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stages.scan.found import Folder

# Names that only a class folder has, and words that may also name a category, a style or a source of images.
_CLASS_NAMES = (
    frozenset({"real", "0_real", "reals", "real_images"}),
    frozenset({"fake", "1_fake", "fakes", "fake_images"}),
)
_CLASS_WORDS = (frozenset({"nature", "natural", "photo", "photos"}), frozenset({"ai", "synthetic", "generated"}))
REAL_NAMES, FAKE_NAMES = (names | words for names, words in zip(_CLASS_NAMES, _CLASS_WORDS, strict=True))
_SPLIT = re.compile(
    r"(?:(?P<train>train|trainval|training)|(?P<val>val|valid|validation|dev|devel|development)"
    r"|(?P<test>tests?|testing|eval|evaluation|hold[-_ ]?out|held[-_ ]?out))"
    r"(?:[-_ ]?(?:set|split|data|images|imgs|dev|std|challenge|[0-9]+)|[-_ ][a-z])*"
)
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
        """Return what a folder's images are; None where its path does not tell: an error, or another layout's."""

    def place_all(self, folders: Sequence[Folder]) -> list[Place | LeftOut | None]:
        """Return what the images of all folders of a corpus are, one value per folder."""
        return [self.place(folder) for folder in folders]


def class_at(folders: Sequence[str]) -> tuple[int, int] | None:
    """Return (position, label) of the class folder of a path, or None.

    It is the outermost folder called ``real``, ``1_fake`` or so, in any case; where there is none, the outermost one
    called by a word such as ``photo`` or ``generated``. Below a folder of the first kind such words are names of
    categories, as in ``fake/sdxl/nature``.

    Raises:
        DataError: class folders contradict each other, as in ``photos/fake`` or ``real/fake``.
    """
    names, words = (
        [(at, label) for at, folder in enumerate(folders) for label in (0, 1) if folder.casefold() in spelled[label]]
        for spelled in (_CLASS_NAMES, _CLASS_WORDS)
    )
    if not names and not words:
        return None
    outermost = (names or words)[0]
    counting = names + [word for word in words if not names or word[0] < outermost[0]]
    for at, label in counting:
        if label != outermost[1]:
            real, fake = (folders[at], folders[outermost[0]])[:: 1 if label == 0 else -1]
            raise DataError(
                f"{'/'.join(folders)}: the folder {real!r} says real and {fake!r} says synthetic; rename the one that "
                "names no class, or take the layout `list` or `unlabelled`"
            )
    return outermost


def set_at(folders: Sequence[str], sets: Collection[str]) -> tuple[int, str] | None:
    """Return (position, name of the set) of the deepest folder that is called like one of ``sets``, or None."""
    for position in range(len(folders) - 1, -1, -1):
        spelled = folders[position].casefold()
        name = _OTHER_SPELLINGS.get(spelled, spelled)
        if name in sets:
            return position, name
    return None


def split_named(folder: str) -> str | None:
    """Return the split, "train", "val" or "test", that a folder is called like, as ``test2017`` or ``dev``, or None."""
    found = _SPLIT.fullmatch(folder.casefold())
    return None if found is None else found.lastgroup


def split_of(folders: Sequence[str]) -> str | None:
    """Return the split that the first folder called like one names, or None."""
    return next(filter(None, map(split_named, folders)), None)


def without_splits(folders: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that are not called like a split."""
    return tuple(folder for folder in folders if split_named(folder) is None)


def label_of(text: str) -> int | None:
    """Return the label that a word or a digit in a table tells, or None."""
    word = text.strip().casefold()
    if word in REAL_NAMES or word == "0":
        return 0
    return 1 if word in FAKE_NAMES or word == "1" else None
