"""Image files that lie together, and what the path of their folder says of them: class, split, and the names around."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from stages.scan.classes import LEFT_OUT, ClassNames, split_word
from storage.errors import DataError
from storage.names import REALS

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARCHIVE = re.compile(r"(?P<stem>.*)\.(?P<kind>zip|tar|parquet)!", re.IGNORECASE)
# train-000012.tar, part-0.parquet, PublicEval-00000-of-00100.parquet: the number says nothing of the images
_SHARD = re.compile(r"(?P<name>.*?)-?(?:\d{4,}|(?<=-)\d+)(?:-of-\d+)?")
_NUMBER = re.compile(r"\d+")  # 012.tar
# The categories of LSUN, as ProGAN was trained on them.
LSUN_CLASSES = frozenset(
    {
        *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    }
)


@dataclass(frozen=True)
class FolderLabels:
    """What is known of all images of a folder, or what a list or an archive states of some images.

    Attributes:
        label: 0 real, 1 synthetic, None unknown, ``LEFT_OUT``.
        generator: what made the synthetic images; "" stands for the name of the corpus.
        split: "train", "val", "test", or None where nothing tells; as it is spelled, where an archive states it.
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


@dataclass
class Folder:
    """Image files that lie together, in a folder or inside an archive, which a layout labels together.

    Attributes:
        prefix: the start of the files' ``path`` in the manifest, without the last slash; empty for the root.
        stated: what an archive states of its images; None where it states nothing.
        names: names of the files, with extension, as text of :mod:`storage.names`.
        sizes: size of each in bytes.
        mtimes: modification time of each in ns.
        error: why an archive, the only file of the folder, cannot be read; None for images.
        split: what the path says of the split, as :func:`read_paths` decides; so are the other attributes.
        label: what the class folder on the path says; None without one.
        above: names of the folders above the class folder, or of all, without that of the split.
        class_name: name of the class folder.
        below: names of the folders below the class folder, and its own where that names the generator.
    """

    prefix: str
    stated: FolderLabels | None = None
    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    mtimes: array[int] = field(default_factory=lambda: array("q"))
    error: str | None = None
    split: str | None = None
    label: int | None = None
    above: tuple[str, ...] = ()
    class_name: str | None = None
    below: tuple[str, ...] = ()

    def add(self, name: str, size_bytes: int, mtime_ns: int) -> None:
        """Add one file."""
        self.names.append(name)
        self.sizes.append(size_bytes)
        self.mtimes.append(mtime_ns)

    def path(self, name: str) -> str:
        """Return the ``path`` of one of its files in the manifest."""
        return inside(self.prefix, name)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def is_shared(self) -> bool:
        """Whether it lies below the second root, that of the shared real images."""
        return self.prefix == REALS or self.prefix.startswith(f"{REALS}/")

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the folders from the root down, without that of the split."""
        return self.above if self.class_name is None else (*self.above, self.class_name, *self.below)

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders from the root down, archives among them counted as folders of their own name.

        ``images/sdxl.zip!/sdxl/val`` reads ``images/sdxl/val`` and ``1_fake.zip!`` reads ``1_fake``. A numbered shard
        reads like a folder of its name without the number: ``train-000012.tar!`` like ``train``.
        """
        return tuple(name for name, _ in self._named)

    @cached_property
    def shard(self) -> str | None:
        """Name of the numbered shard they lie in, without the number; None where they lie in none."""
        return next((name for name, is_shard in self._named if is_shard), None)

    @cached_property
    def _named(self) -> list[tuple[str, bool]]:
        """Name of each folder, and whether it is that of a numbered shard."""
        parts = [part for part in self.prefix.split("/") if part not in ("", ".")][self.is_shared :]
        found: list[tuple[str, bool]] = []
        for at, part in enumerate(parts):
            archive = _ARCHIVE.fullmatch(part)
            if archive is None:
                found.append((part, False))
                continue
            stem, is_parquet = archive["stem"], archive["kind"].lower() == "parquet"
            shard = _SHARD.fullmatch(stem)
            if _NUMBER.fullmatch(stem):
                found.append(("", True))
            elif shard is not None and (is_parquet or re.search(r"\d{4,}", stem)):
                found.append((shard["name"], True))
            elif is_parquet:
                found.append((stem if split_word(stem) else "", True))
            elif stem.casefold() not in (name.casefold() for name in (*parts[at - 1 : at], *parts[at + 1 : at + 2])):
                found.append((stem, False))
        return found

    def take(self, split_at: int | None, class_at: int | None, label: int | None, *, names_generator: bool) -> None:
        """Take folders of the path, by their positions, for those of its split and class; None for none."""
        self.split = None if split_at is None else split_word(self.folders[split_at])
        self.label, self.class_name = label, None if class_at is None else self.folders[class_at]
        kept = [
            (at, name)
            for at, (name, is_shard) in enumerate(self._named)
            if at not in {split_at, class_at} and not is_shard
        ]
        self.above = tuple(name for at, name in kept if class_at is None or at < class_at)
        self.below = tuple(name for at, name in kept if class_at is not None and at > class_at)
        if names_generator and self.class_name is not None:
            self.below = (self.class_name, *self.below)


def inside(prefix: str, name: str) -> str:
    """Return the path of a name below a prefix."""
    return f"{prefix}/{name}" if prefix else name


def read_paths(folders: Sequence[Folder], names: ClassNames, corpus: str, root: str) -> None:
    """Decide for each folder of a corpus which of the folders on its path is that of its class and of its split.

    Raises:
        DataError: a path names both classes; a Parquet file states another class than the folder it lies in; or, below
            the class folders, some images are divided into splits and others are not.
    """
    try:
        classes = _class_folders(folders, names)
    except DataError as error:
        raise DataError(f"corpus {corpus!r}, {root}: {error}") from None
    above_class = {folder.folders[: found[0]] for folder, found in zip(folders, classes, strict=True) if found}
    for at, folder in enumerate(folders):
        rest = None if classes[at] or not folder.folders else names.rest_label(folder.folders[-1])
        if rest is not None:
            beside = [depth for depth in range(len(folder.folders)) if folder.folders[:depth] in above_class]
            classes[at] = beside[-1] if beside else 0, rest
    splits = _split_folders(folders, classes, corpus, root)
    for folder, found, split_at in zip(folders, classes, splits, strict=True):
        class_at, label = found or (None, None)
        is_generator = class_at is not None and label == 1 and names.is_generator(folder.folders[class_at])
        folder.take(split_at, class_at, label, names_generator=is_generator)
        stated = folder.stated
        if stated is not None and stated.label not in (None, label) and label not in (None, LEFT_OUT):
            raise DataError(
                f"corpus {corpus!r}: {folder.prefix} below {root} lies in a folder {folder.class_name!r}, and says of "
                f"{len(folder)} image(s) that they are {'synthetic' if stated.label else 'real'}; rename the folder or "
                "correct the file"
            )


def _class_folders(folders: Sequence[Folder], names: ClassNames) -> list[tuple[int, int] | None]:
    """Return (position, label) of each folder's class folder; a path without images may contradict itself."""

    def find(folder: Folder, *, weak: bool) -> tuple[int, int] | None:
        try:
            return names.find(folder.folders, weak=weak)
        except DataError:
            if len(folder):
                raise
            return None

    try:  # the weak names count where with them every folder has a class, and both classes are there
        found = [find(folder, weak=True) for folder in folders]
        labels = {one and one[1] for one, folder in zip(found, folders, strict=True) if len(folder)}
        if labels - {LEFT_OUT} == {0, 1}:
            return found
    except DataError:
        pass
    return [find(folder, weak=False) for folder in folders]


def _split_folders(
    folders: Sequence[Folder], classes: Sequence[tuple[int, int] | None], corpus: str, root: str
) -> list[int | None]:
    """Return for each folder the position of the folder of its split, None for none.

    It is the outermost one above the class folder that is called like a split. A folder called ``train`` beside other
    categories of LSUN is the vehicle. Below the class folders a name counts as a split only where all images of both
    classes are divided by the same ones, as in ``{real,fake}/{train,test}``.
    """
    beside: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for folder in folders:
        for at, name in enumerate(folder.folders):
            beside[folder.folders[:at]].add(name.casefold())

    def first(path: tuple[str, ...], start: int, stop: int) -> int | None:
        for at in range(start, stop):
            is_vehicle = path[at].casefold() == "train" and beside[path[:at]] & (LSUN_CLASSES - {"train"})
            if split_word(path[at]) and not is_vehicle:
                return at
        return None

    found: list[int | None] = []
    undivided: list[tuple[int, int | None]] = []  # number of the folder, position of a split below its class
    splits: dict[int, set[str | None]] = {0: set(), 1: set()}
    for number, (folder, class_folder) in enumerate(zip(folders, classes, strict=True)):
        path = folder.folders
        class_at, label = class_folder or (len(path), None)
        found.append(first(path, 0, class_at))
        if label in splits and found[-1] is None and len(folder):
            below = first(path, class_at + 1, len(path))
            undivided.append((number, below))
            splits[label].add(None if below is None else split_word(path[below]))
    real, synthetic = splits[0] or splits[1], splits[1] or splits[0]
    if real == synthetic and None not in real:
        for number, below in undivided:
            found[number] = below
    elif (real - {None} and synthetic - {None}) or (len(synthetic) > 1 and None not in synthetic):
        divided = next(number for number, below in undivided if below is not None)
        other = next((number for number, below in undivided if below is None), undivided[-1][0])
        raise DataError(
            f"corpus {corpus!r}: {folders[divided].prefix} below {root} is of a split by a folder below its class "
            f"folder, but {folders[other].prefix} is not, or the classes have other splits; put the folders of the "
            "splits above those of the classes, as in train/real, or rename them"
        )
    return found
