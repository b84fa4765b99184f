"""From what is known of single folders to the whole corpus: its test sets, shared reals, copies and contradictions."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from stages.scan.benchmarks import set_at
from stages.scan.protocols import known_sets
from storage.errors import DataError
from storage.manifest import EVALUATION_ORDER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from stages.scan.folder import Folder, FolderLabels
    from storage.sources import Sources

SHARED = "@reals"  # the pool of the images below the second root
_NAMED = 10  # of many folders, the number that one line names


def with_sets(folders: Sequence[FolderLabels]) -> list[FolderLabels]:
    """Give every folder its final split and test sets.

    Real images of a pool become members of the sets of all synthetic images of their pool and split that have no real
    images of their own; those below the second root, of all sets that are still without. Where a corpus has several
    splits, the test sets are those of its test split, or else of its validation split; the sets of the other splits
    have the split's name in front (``train/progan``), so that no test set holds images to train on. Images in no split
    beside others in one, as in ``ufd/{test,diffusion_datasets}``, belong to the split that is evaluated.
    """
    divided = {labels.split for labels in folders if labels.pool != SHARED}
    if divided <= {None}:
        folders = [replace(labels, split=None) for labels in folders]  # reals of any split, where the root has none
    evaluation = next((split for split in EVALUATION_ORDER if split in divided), None)
    folders = [replace(labels, split=labels.split or evaluation) for labels in folders]
    synthetic: dict[tuple[str | None, str | None], set[str]] = defaultdict(set)  # (split, pool) -> its sets
    served: dict[str | None, set[str]] = defaultdict(set)  # split -> sets that have reals without the second root
    for labels in folders:
        if labels.label == 1:
            synthetic[labels.split, labels.pool].update(labels.sets)
    own: dict[str | None, set[str]] = defaultdict(set)  # split -> sets that have real images of their own
    for labels in folders:
        if labels.label == 0 and labels.pool is None:
            own[labels.split].update(labels.sets)
        elif labels.label == 0 and labels.pool != SHARED:
            served[labels.split] |= synthetic[labels.split, labels.pool]
    final = []
    for labels in folders:
        split, sets = labels.split, set(labels.sets)
        if labels.label == 0 and labels.pool == SHARED:
            of_split = (found for (its, _), found in synthetic.items() if its == split)
            sets = set().union(*of_split) - own[split] - served[split]
        elif labels.label == 0 and labels.pool is not None:
            sets = (synthetic[split, labels.pool] - own[split]) or sets
        named = (name if split in (None, evaluation) else f"{split}/{name}" for name in sets)
        final.append(replace(labels, sets=tuple(sorted(named))))
    return final


def selected(
    labels: FolderLabels,
    sets: Collection[str] | None,
    splits: Collection[str] | None,
    categories: Collection[str] | None,
) -> FolderLabels | None:
    """Return a folder's labels with the sets asked for alone, None where it is not asked for; None asks for all."""
    if splits is not None and labels.split not in splits:
        return None
    if categories is not None and labels.pool != SHARED and labels.category not in categories:
        return None
    if sets is None:
        return labels
    chosen = tuple(name for name in labels.sets if name in sets)
    return replace(labels, sets=chosen) if chosen else None


def one_class_sets(folders: Iterable[FolderLabels]) -> dict[str, str]:
    """Return set -> the class it lacks, for the sets with images of one class only."""
    classes: dict[str, set[int]] = defaultdict(set)
    for labels in folders:
        for name in labels.sets:
            if labels.label is not None:
                classes[name].add(labels.label)
    return {name: "real" if 1 in found else "synthetic" for name, found in sorted(classes.items()) if len(found) == 1}


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


def missing_folders(empty: Sequence[Folder], folders: Sequence[Folder], layout: str) -> list[Folder]:
    """Return those of the folders without images that are folders of a class, a generator or a set."""
    labelled = [folder for folder in folders if folder.class_name is not None]
    beside_sets = {folder.above[:at] for folder in labelled for at in range(len(folder.above))}
    sets = known_sets(layout)
    return [
        folder
        for folder in empty
        if folder.folders
        and (folder.label is not None or folder.parts[:-1] in beside_sets or set_at(folder.folders, sets) is not None)
    ]


def twins(folders: Sequence[Folder]) -> list[str]:
    """Return a warning of folders beside each other whose names differ in case or Unicode form only, or none."""
    spelled: dict[tuple[str, str], set[str]] = defaultdict(set)
    for folder in folders:
        parts = folder.prefix.split("/")
        for depth, part in enumerate(parts):
            above = "/".join(parts[:depth])
            name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())
            spelled[above, name].add(f"{above}/{part}".lstrip("/"))
    twice = [" and ".join(sorted(paths)) for _, paths in sorted(spelled.items()) if len(paths) > 1]
    line = f"{some(twice)}: the names differ in case or Unicode form only; all are read, put them into one folder"
    return [line] if twice else []


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
        if folder.error is not None:
            packed[folder.path(folder.names[0])].append(folder)
        elif "!" in folder.prefix:
            packed[folder.prefix.partition("!")[0]].append(folder)
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
    lines = [
        f"{some([f'{archive} in {where}' for archive, where in found.items()])}: {what}"
        for found, what in (
            (whole, "unpacked there, so the archive was left out"),
            (part, "some images are unpacked there, and listed twice; remove either"),
        )
        if found
    ]
    return [folder for folder in folders if id(folder) not in left_out], lines, len(whole)


def linked_twice(found: Sequence[tuple[Folder, FolderLabels]], sources: Sources, corpus: str) -> list[str]:
    """Return a warning of folders that are listed twice because a link leads to them, or none.

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
