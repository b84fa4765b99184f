"""What is wrong with the folders of a corpus as a whole: contradictions are refused, the rest is named."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

from stages.scan.place import class_at, contradiction, set_at
from stages.scan.set_lists import known_sets
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.scan.found import Folder
    from stages.scan.place import Place
    from storage.sources import Sources

_NAMED = 10  # of many folders, the number that one line names


def check_classes(folders: Sequence[Folder], corpus: str, root: str) -> None:
    """Check that no path names both classes, and no Parquet file another class than the folder it lies in.

    Raises:
        DataError: one does.
    """
    for folder in folders:
        names = contradiction(folder.folders)
        if names is not None:
            raise DataError(
                f"corpus {corpus!r}: {folder.place} below {root} lies in a folder {names[0]!r} and in a folder "
                f"{names[1]!r}, of which one says real and the other synthetic; rename the one that is no class"
            )
        found, stated = class_at(folder.folders), folder.stated
        if found is not None and stated is not None and stated.label not in (None, found[1]):
            raise DataError(
                f"corpus {corpus!r}: {folder.place} below {root} lies in a folder {folder.folders[found[0]]!r}, and "
                f"says of {len(folder)} image(s) that they are {'synthetic' if stated.label else 'real'}; rename the "
                "folder or correct the file"
            )


def check_splits(found: Sequence[tuple[Folder, Place]], layout: str, corpus: str, root: str) -> None:
    """Check that all images with a label are of a split, or none: others would be trained on and evaluated.

    A benchmark's own folders may lie beside its folder ``test``, as those of UFD's diffusion sets do.

    Raises:
        DataError: some are of no split.
    """
    first = {place.split: folder for folder, place in reversed(found) if place.label is not None}
    divided = next((split for split in ("train", "val", "test") if split in first), None)
    of_benchmark = layout not in ("folder", "community-forensics", "list")
    if None not in first or divided is None or (of_benchmark and divided != "train"):
        return
    without, other = (first[split].path(first[split].names[0]) for split in (None, divided))
    raise DataError(
        f"corpus {corpus!r}: {without} below {root} is of no split, but {other} is of {divided}; expected all images "
        "to be of a split, or none; rename its folder (docs/data.md lists the names), or scan it as another corpus"
    )


def missing_folders(empty: Sequence[Folder], folders: Sequence[Folder], layout: str) -> list[str]:
    """Name the folders of classes, generators and sets that hold no image.

    Args:
        empty: the folders without images.
        folders: those with images.
        layout: name of the layout.
    """
    beside_sets: set[tuple[str, ...]] = set()
    for folder in folders:
        found = class_at(folder.folders)
        beside_sets.update(folder.folders[:at] for at in range(found[0] if found else 0))
    missing = [
        folder.place
        for folder in empty
        if folder.folders
        and (
            class_at(folder.folders) or folder.folders[:-1] in beside_sets or set_at(folder.folders, known_sets(layout))
        )
    ]
    return [f"no image in {_some(missing)}: missing from the corpus"] if missing else []


def twins(folders: Sequence[Folder]) -> list[str]:
    """Name folders beside each other whose names differ in case or Unicode form only."""
    spelled: dict[tuple[str, str], set[str]] = defaultdict(set)
    for folder in folders:
        parts = folder.place.split("/")
        for depth, part in enumerate(parts):
            above = "/".join(parts[:depth])
            name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())
            spelled[above, name].add(f"{above}/{part}".lstrip("/"))
    twice = [" and ".join(sorted(paths)) for _, paths in sorted(spelled.items()) if len(paths) > 1]
    if not twice:
        return []
    return [f"{_some(twice)}: the names differ in case or Unicode form only; all are read, put them into one folder"]


def without_unpacked(folders: Sequence[Folder]) -> tuple[list[Folder], list[str], int]:
    """Leave out archives whose images also lie unpacked: in a folder of their name, or all of them beside the archive.

    Returns:
        The other folders; one line each that names the archives left out, and those that are unpacked in part; and
        the number of archives left out.
    """
    plain = {folder.place: folder for folder in folders if "!" not in folder.place and folder.error is None}
    parents = {folder.place[: at.start()] for folder in plain.values() for at in re.finditer("/|$", folder.place)}
    packed: dict[str, list[Folder]] = defaultdict(list)
    for folder in folders:
        if "!" in folder.place or folder.error is not None:
            archive = folder.place if folder.error is None else folder.path(folder.names[0])
            packed[archive.partition("!")[0]].append(folder)
    whole: dict[str, str] = {}  # archive -> where it is unpacked
    part: dict[str, str] = {}
    for archive, inner in packed.items():
        own, above = archive.rpartition(".")[0], archive.rpartition("/")[0]
        if own in parents:
            whole[archive] = own
            continue
        copies = 0
        for folder in inner:
            beside = posixpath.normpath(f"{above}/{folder.place.removeprefix(archive).lstrip('!/')}".lstrip("/"))
            twin = plain.get("" if beside == "." else beside)
            held = set(zip(twin.names, twin.sizes, strict=True)) if twin is not None else set()
            copies += sum(image in held for image in zip(folder.names, folder.sizes, strict=True))
        if copies:
            (whole if copies == sum(map(len, inner)) else part)[archive] = above or "the root"
    left_out = {id(folder) for archive in whole for folder in packed[archive]}
    kept = [folder for folder in folders if id(folder) not in left_out]
    pairs = [[f"{archive} in {place}" for archive, place in found.items()] for found in (whole, part)]
    lines = [f"{_some(pairs[0])}: unpacked there, so the archive was left out"] if whole else []
    lines += [f"{_some(pairs[1])}: some images are unpacked there, and listed twice; remove either"] if part else []
    return kept, lines, len(whole)


def linked_twice(found: Sequence[tuple[Folder, Place]], sources: Sources, corpus: str) -> list[str]:
    """Name folders that are listed twice because a link leads to them.

    Raises:
        DataError: one folder is listed as real and as synthetic.
    """
    seen: dict[str, tuple[Folder, Place]] = {}
    twice = []
    for folder, place in found:
        if sources.is_remote or not folder.folders or "!" in folder.place:
            continue
        target = os.path.realpath(sources.where(folder.place))
        other, its = seen.setdefault(target, (folder, place))
        if other is folder:
            continue
        twice.append(f"{other.place} and {folder.place}")
        if its.label != place.label:
            raise DataError(
                f"corpus {corpus!r}: {twice[-1]} are one folder, {target}, by a link, and one is real, the other "
                "synthetic; remove the wrong link"
            )
    return [f"{_some(twice)} are one folder by a link: its images are listed twice"] if twice else []


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
