"""What is wrong with the folders of a corpus as a whole: contradictions are refused, the rest is named."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

from stages.scan.benchmarks import set_at
from stages.scan.protocols import known_sets
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.scan.folder import Folder, FolderLabels
    from storage.sources import Sources

_NAMED = 10  # of many folders, the number that one line names


def check_splits(found: Sequence[tuple[Folder, FolderLabels]], layout: str, corpus: str, root: str) -> None:
    """Check that all images with a label are of a split, or none: others would be trained on and evaluated.

    A benchmark's own folders may lie beside its folder ``test``, as those of UFD's diffusion sets do.

    Raises:
        DataError: some are of no split.
    """
    first = {labels.split: folder for folder, labels in reversed(found) if labels.label is not None}
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
    labelled = [folder for folder in folders if folder.class_name is not None]
    beside_sets = {folder.above[:at] for folder in labelled for at in range(len(folder.above))}
    missing = [
        folder.prefix
        for folder in empty
        if folder.folders
        and (
            folder.label is not None
            or folder.parts[:-1] in beside_sets
            or set_at(folder.folders, known_sets(layout)) is not None
        )
    ]
    return [f"no image in {some(missing)}: missing from the corpus"] if missing else []


def twins(folders: Sequence[Folder]) -> list[str]:
    """Name folders beside each other whose names differ in case or Unicode form only."""
    spelled: dict[tuple[str, str], set[str]] = defaultdict(set)
    for folder in folders:
        parts = folder.prefix.split("/")
        for depth, part in enumerate(parts):
            above = "/".join(parts[:depth])
            name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())
            spelled[above, name].add(f"{above}/{part}".lstrip("/"))
    twice = [" and ".join(sorted(paths)) for _, paths in sorted(spelled.items()) if len(paths) > 1]
    if not twice:
        return []
    return [f"{some(twice)}: the names differ in case or Unicode form only; all are read, put them into one folder"]


def without_unpacked(folders: Sequence[Folder]) -> tuple[list[Folder], list[str], int]:
    """Leave out archives whose images also lie unpacked: in a folder of their name, or all of them beside the archive.

    Returns:
        The other folders; one line each that names the archives left out, and those that are unpacked in part; and
        the number of archives left out.
    """
    plain = {folder.prefix: folder for folder in folders if "!" not in folder.prefix and folder.error is None}
    parents = {folder.prefix[: at.start()] for folder in plain.values() for at in re.finditer("/|$", folder.prefix)}
    packed: dict[str, list[Folder]] = defaultdict(list)
    for folder in folders:
        if "!" in folder.prefix or folder.error is not None:
            archive = folder.prefix if folder.error is None else folder.path(folder.names[0])
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
            beside = posixpath.normpath(f"{above}/{folder.prefix.removeprefix(archive).lstrip('!/')}".lstrip("/"))
            twin = plain.get("" if beside == "." else beside)
            held = set(zip(twin.names, twin.sizes, strict=True)) if twin is not None else set()
            copies += sum(image in held for image in zip(folder.names, folder.sizes, strict=True))
        if copies:
            (whole if copies == sum(map(len, inner)) else part)[archive] = above or "the root"
    left_out = {id(folder) for archive in whole for folder in packed[archive]}
    kept = [folder for folder in folders if id(folder) not in left_out]
    pairs = [[f"{archive} in {where}" for archive, where in found.items()] for found in (whole, part)]
    lines = [f"{some(pairs[0])}: unpacked there, so the archive was left out"] if whole else []
    lines += [f"{some(pairs[1])}: some images are unpacked there, and listed twice; remove either"] if part else []
    return kept, lines, len(whole)


def linked_twice(found: Sequence[tuple[Folder, FolderLabels]], sources: Sources, corpus: str) -> list[str]:
    """Name folders that are listed twice because a link leads to them.

    Raises:
        DataError: one folder is listed as real and as synthetic.
    """
    seen: dict[str, tuple[Folder, FolderLabels]] = {}
    twice = []
    for folder, labels in found:
        if sources.is_remote or not folder.folders or "!" in folder.prefix:
            continue
        target = os.path.realpath(sources.where(folder.prefix))
        other, its = seen.setdefault(target, (folder, labels))
        if other is folder:
            continue
        twice.append(f"{other.prefix} and {folder.prefix}")
        if its.label != labels.label:
            raise DataError(
                f"corpus {corpus!r}: {twice[-1]} are one folder, {target}, by a link, and one is real, the other "
                "synthetic; remove the wrong link"
            )
    return [f"{some(twice)} are one folder by a link: its images are listed twice"] if twice else []


def some(names: Sequence[str]) -> str:
    """Return the first of many names, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
