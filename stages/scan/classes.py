"""What names mean: the class that a folder or a label states, and the split that a folder is of."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEFT_OUT = -1  # stands where a label would: neither real nor synthetic, by the user's word
EXPECTED = "expected 0 or real, 1 or fake, another name of docs/data.md, or one of `classes` (--real, --synthetic)"
_NAMES_SHOWN = 8
_WEAK = -2
# Name of a class -> (label, rank). Rank 2 is the field's own spelling of class folders, 1 a name that means the class
# alone, 0 a name that categories, styles and generators have too. A weak one counts only where the names of all folders
# tell a class, and both classes are there.
_CLASS_NAMES = {
    "0-real": (0, 2),
    "1-fake": (1, 2),
    **dict.fromkeys(("real", "reals", "real-images"), (0, 1)),
    **dict.fromkeys(("fake", "fakes", "fake-images"), (1, 1)),
    **dict.fromkeys(("nature", "natural", "photo", "photos", "authentic"), (0, 0)),
    **dict.fromkeys(("ai", "synthetic", "generated", "ai-generated", "aigenerated", "aigc"), (1, 0)),
    **dict.fromkeys(("human", "original", "originals", "camera"), (0, _WEAK)),
    **dict.fromkeys(("gan", "deepfake", "deepfakes"), (1, _WEAK)),
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


class ClassPatterns(BaseModel):
    """Shell patterns that say which names of folders, and which labels, are of which class.

    A class without patterns has the built-in names; images of ``leave_out`` are neither, and are not listed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    real: tuple[str, ...] = ()
    synthetic: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _rest_of_one_class(self) -> ClassPatterns:
        for rest, other, name in ((self.real, self.synthetic, "synthetic"), (self.synthetic, self.real, "real")):
            if "*" in rest and (not other or "*" in other):
                raise ValueError(
                    f"the pattern '*' takes all names that no other pattern takes; expected patterns for {name} too, "
                    "and no '*' among them"
                )
        return self


class ClassNames:
    """The names of the classes of one corpus; remembers which of the user's patterns were of use."""

    def __init__(self, patterns: ClassPatterns | None = None) -> None:
        patterns = patterns or ClassPatterns()
        given = {LEFT_OUT: patterns.leave_out, 0: patterns.real, 1: patterns.synthetic}
        self._patterns = [(pattern, label) for label, names in given.items() for pattern in names]
        self._built_in = {label for label in (0, 1) if not given[label]}
        self._rest = next((label for label in (0, 1) if "*" in given[label]), None)
        self._met: set[str] = set()

    @property
    def is_given(self) -> bool:
        """Whether the user named any pattern."""
        return bool(self._patterns)

    def label(self, value: str) -> int | None:
        """Return what a label in a table says: 0 real, 1 synthetic, ``LEFT_OUT``, or None where it is unknown."""
        found = self._match(value)
        if found is not None:
            return found[0]
        if value.strip() in {"0", "1"} and int(value) in self._built_in:
            return int(value)
        return self.rest_label(value)

    def stated(self, value: str, where: str, known: Iterable[str] = ()) -> tuple[int, str | None]:
        """Return the class that a label in a table states, and the generator where a pattern tells the class by it.

        Args:
            value: the label.
            where: the file and the row, for messages.
            known: all labels of the table, where it lists them.

        Raises:
            DataError: it says neither real nor synthetic.
        """
        label = self.label(value) if value else None
        if label is None:
            way_out = how_to_name(known or [value])
            raise DataError(f"{where}: label {value!r} says neither real nor synthetic; {EXPECTED}{way_out}")
        return label, value if label == 1 and self.is_generator(value) else None

    def find(self, folders: Sequence[str], *, weak: bool = True) -> tuple[int, int] | None:
        """Return (position, label) of the class folder on a path, or None.

        Of the user's patterns the innermost folder that one matches counts. Of the built-in names the outermost counts,
        and a name that categories have too gives way: ``nature/1_fake`` and ``1_fake/nature`` are both synthetic.

        Args:
            folders: names of the folders from the root down.
            weak: use the weak built-in names too.

        Raises:
            DataError: the path names both classes; with patterns, where a folder above is wholly named like the other.
        """
        found = [(at, *match) for at, name in enumerate(folders) if (match := self._match(name)) is not None]
        for at, label, _ in found:
            if label == LEFT_OUT:
                return at, LEFT_OUT
        if self._built_in == {0, 1}:
            return _built_in_class(folders, weak=weak)
        if not found:
            return None
        at, label, _ = found[-1]
        for other, opposite, is_whole_name in found:
            if opposite != label and is_whole_name:  # fake/real_esrgan, where real_* is real
                raise _contradiction(folders, other, at)
        return at, label

    def rest_label(self, name: str) -> int | None:
        """Return the class whose pattern is ``*``, that of all names that no other pattern takes; None for neither."""
        if not name or self._rest is None:
            return None
        self._met.add("*")
        return self._rest

    def is_generator(self, name: str) -> bool:
        """Tell whether a name by which a pattern tells synthetic images also names their generator."""
        return self.is_given and 1 not in self._built_in and _spelled(name) not in _CLASS_NAMES

    def check_all_met(self, corpus: str, root: str) -> None:
        """Check that each pattern was of use.

        Raises:
            DataError: one takes no name.
        """
        idle = [pattern for pattern, _ in self._patterns if pattern not in self._met]
        if idle:
            raise DataError(
                f"corpus {corpus!r}: no folder or label of {root} matches the pattern {', '.join(map(repr, idle))} of "
                "its `classes` (--real, --synthetic, --leave-out); correct or remove it"
            )

    def _match(self, name: str) -> tuple[int, bool] | None:
        """Return (label, whether a whole name tells it) of a name, without the pattern ``*``."""
        word = name.strip().casefold()
        found: dict[int, str] = {}
        for pattern, label in self._patterns:
            if pattern != "*" and fnmatchcase(word, pattern.casefold()):
                self._met.add(pattern)
                found.setdefault(label, pattern)
        if {0, 1} <= set(found) and LEFT_OUT not in found:
            raise DataError(
                f"the name {name!r} matches the pattern {found[0]!r} for real and the pattern {found[1]!r} for "
                "synthetic images; make one of them narrower"
            )
        for label, pattern in found.items():
            return label, not set(pattern) & set("*?[")
        known = _CLASS_NAMES.get(_spelled(name))
        return (known[0], True) if known is not None and known[0] in self._built_in else None


def as_text(value: Any, what: str) -> str:
    """Return a value of a table as text; other programs write whole numbers as 1.0, and a missing text as NaN.

    Raises:
        DataError: it is neither text nor a number.
    """
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{what} {value!r} is neither text nor a number")
    return str(value).strip()


def how_to_name(unknown: Iterable[str]) -> str:
    """Return what to write where names say no class; empty where there is no name."""
    known = sorted(set(unknown) - {""})
    if not known:
        return ""
    shown = ", ".join(known[:_NAMES_SHOWN]) + (", ..." if len(known) > _NAMES_SHOWN else "")
    return (
        f"; say which of {shown} are which with --real PATTERN and --synthetic PATTERN, or in params.yaml with "
        "`classes: {real: [PATTERN], synthetic: [PATTERN]}` (and leave_out for neither)"
    )


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


def _built_in_class(folders: Sequence[str], *, weak: bool) -> tuple[int, int] | None:
    words = [
        (at, *known)
        for at, name in enumerate(folders)
        if (known := _CLASS_NAMES.get(_spelled(name))) is not None and (weak or known[1] != _WEAK)
    ]
    if not words:
        return None
    at, label, rank = max(words, key=lambda word: word[2])
    for position, other, weight in words:
        gives_way = weight < rank if position > at else rank - weight > 1
        if other != label and not gives_way:
            raise _contradiction(folders, at, position)
    return at, label


def _spelled(name: str) -> str:
    return re.sub("[ _]", "-", name.strip().casefold())


def _contradiction(folders: Sequence[str], first: int, second: int) -> DataError:
    outer, inner = sorted((first, second))
    return DataError(
        f"{'/'.join(folders)} lies in a folder {folders[outer]!r} and in a folder {folders[inner]!r}, of which one "
        "says real and the other synthetic; rename the one that is no class"
    )
