"""What the place of a folder says of its images: label, generator, split, test sets and category."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stages.scan.found import Folder

# Word for a class -> (label, rank). Rank 2 is the field's own spelling of class folders, 1 a word that means the class
# alone, 0 a word that is also the name of categories, styles and generators.
_CLASS_WORDS = {
    "0_real": (0, 2),
    "1_fake": (1, 2),
    **dict.fromkeys(("real", "reals", "real_images"), (0, 1)),
    **dict.fromkeys(("fake", "fakes", "fake_images"), (1, 1)),
    **dict.fromkeys(("nature", "natural", "photo", "photos"), (0, 0)),
    **dict.fromkeys(("ai", "synthetic", "generated"), (1, 0)),
}
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "devel", "development", "minival"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "evaluate", "holdout", "heldout"), "test"),
}
# What may stand beside a word for a split, besides numbers and single letters: test_set, val2014, train-images, test_A.
_BESIDE_SPLIT = frozenset(
    {
        *("set", "sets", "split", "splits", "data", "dataset", "image", "images", "img", "imgs", "fold", "part"),
        *("public", "private", "final", "full", "mini", "small", "seen", "unseen"),
    }
)
# The categories of LSUN, as ProGAN was trained on them.
LSUN_CLASSES = frozenset(
    {
        *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    }
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
        """Say what a folder's images are; None where its place does not tell, which is an error or another layout."""


def class_at(folders: Sequence[str]) -> tuple[int, int] | None:
    """Return (position, label) of the class folder on a path, or None.

    It is the outermost folder that is called like a class, in any case. A word that is also the name of a category
    gives way to one that is not: ``nature/1_fake`` and ``1_fake/nature`` are both synthetic.
    """
    words = _class_words(folders)
    return max(words, key=lambda word: word[2])[:2] if words else None


def contradiction(folders: Sequence[str]) -> tuple[str, str] | None:
    """Return the names of two folders on a path of which one says real, the other synthetic, and neither gives way."""
    words = _class_words(folders)
    at, label, rank = max(words, key=lambda word: word[2], default=(0, 0, 0))
    for position, other, weight in words:
        gives_way = weight < rank if position > at else rank - weight > 1
        if other != label and not gives_way:
            return folders[at], folders[position]
    return None


def _class_words(folders: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return (position, label, rank) of each folder that is called like a class, from the root down."""
    words = ((position, _CLASS_WORDS.get(name.casefold())) for position, name in enumerate(folders))
    return [(position, *word) for position, word in words if word is not None]


def set_at(folders: Sequence[str], sets: Collection[str]) -> tuple[int, str] | None:
    """Return (position, name of the set) of the deepest folder that is called like one of ``sets``, or None."""
    for position in range(len(folders) - 1, -1, -1):
        spelled = folders[position].casefold()
        name = _OTHER_SPELLINGS.get(spelled, spelled)
        if name in sets:
            return position, name
    return None


@cache
def split_word(name: str) -> str | None:
    """Return the split that a name means: ``training``, ``test_set`` and ``val2017`` mean one, ``flux-dev`` None."""
    spelled = re.sub(r"(hold|held)[ _-]?out", r"\1out", name.strip().casefold())
    found = set()
    for token in re.findall(r"[a-z]+|\d+|[^\W\d_a-z]+", spelled):
        word = token if token in _SPLIT_WORDS else re.sub("(set|data|split|images)$", "", token)
        if word in _SPLIT_WORDS:
            found.add(_SPLIT_WORDS[word])
        elif token not in _BESIDE_SPLIT and not token.isdecimal() and len(token) > 1:
            return None
    if found == {"train", "val"}:  # train_val: both are for training
        return "train"
    if found == {"test", "val"} and "dev" in spelled:  # test-dev, a part of the test images of COCO
        return "test"
    return found.pop() if len(found) == 1 else None


def split_at(folders: Sequence[str]) -> int | None:
    """Return the position of the outermost folder above the class folder that is called like a split, or None."""
    found = class_at(folders)
    above = folders if found is None else folders[: found[0]]
    return next((at for at, name in enumerate(above) if split_word(name)), None)


def read_splits(folders: Sequence[Folder], corpus: str, root: str) -> None:
    """Decide for each folder of a corpus, seen beside the others, which of the folders on its path is its split.

    A folder called ``train`` beside other categories of LSUN is the vehicle. Below the class folders a name counts as a
    split only where all images of both classes are divided by the same ones, as in ``{real,fake}/{train,test}``.

    Raises:
        DataError: below the class folders, some images are divided into splits and others are not.
    """
    beside: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for folder in folders:
        for at, name in enumerate(folder.folders):
            beside[folder.folders[:at]].add(name.casefold())

    def first(path: tuple[str, ...], start: int, stop: int) -> int | None:
        return next(
            (
                at
                for at in range(start, stop)
                if split_word(path[at])
                and not (path[at].casefold() == "train" and beside[path[:at]] & (LSUN_CLASSES - {"train"}))
            ),
            None,
        )

    undivided: list[tuple[Folder, int | None]] = []
    splits: dict[int, set[str | None]] = {0: set(), 1: set()}
    for folder in folders:
        path = folder.folders
        found = class_at(path)
        folder.take_split(first(path, 0, len(path) if found is None else found[0]))
        if found is not None and folder.split is None and len(folder):
            below = first(path, found[0] + 1, len(path))
            undivided.append((folder, below))
            splits[found[1]].add(None if below is None else split_word(path[below]))
    real, synthetic = splits[0] or splits[1], splits[1] or splits[0]
    if real == synthetic and None not in real:
        for folder, below in undivided:
            folder.take_split(below)
    elif (real - {None} and synthetic - {None}) or (len(synthetic) > 1 and None not in synthetic):
        divided = next(folder for folder, below in undivided if below is not None)
        other = next((folder for folder, below in undivided if below is None), undivided[-1][0])
        raise DataError(
            f"corpus {corpus!r}: {divided.place} below {root} is of a split by a folder below its class folder, but "
            f"{other.place} is not, or the classes have other splits; put the folders of the splits above those of the "
            "classes, as in train/real, or rename them"
        )


def label_of(text: str) -> int | None:
    """Return the label that a word or a digit in a table tells, or None."""
    word = text.strip().casefold()
    if word in ("0", "1"):
        return int(word)
    return _CLASS_WORDS[word][0] if word in _CLASS_WORDS else None
