"""Scan one corpus into its manifest."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.reporter import SilentReporter
from stages.scan.classes import LEFT_OUT, ClassNames, how_to_name
from stages.scan.corpus import (
    SHARED,
    check_splits,
    linked_twice,
    missing_folders,
    selected,
    some,
    twins,
    with_sets,
    without_unpacked,
)
from stages.scan.folder import FolderLabels, read_paths
from stages.scan.layouts import LAYOUTS, layout_name, recognise, unnamed
from stages.scan.listed import LIST_EXTENSIONS, is_list, read_list
from stages.scan.packed import BY_CLASS
from stages.scan.summary import KINDS_SHOWN, ScanSummary, summarise
from stages.scan.walk import MISSING, UNREADABLE, walk
from storage.archives import ARCHIVE_EXTENSIONS
from storage.errors import DataError, SettingError
from storage.manifest import MANIFEST_SCHEMA, MISSING_KEY, manifest_table, write_manifest
from storage.names import REALS
from storage.remote import is_url
from storage.sources import Sources, is_one_file, is_pattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from stages.reporter import Progress, Reporter
    from stages.scan.classes import ClassPatterns
    from stages.scan.folder import Folder


def run(
    *,
    corpus: str,
    root: Path | str,
    layout: str,
    reals: Path | str | None = None,
    classes: ClassPatterns | None = None,
    sets: Sequence[str] | None = None,
    splits: Collection[str] | None = None,
    categories: Collection[str] | None = None,
    out: Path | None = None,
    reporter: Reporter | None = None,
    strict: bool = False,
) -> tuple[pa.Table, ScanSummary]:
    """List the images of a corpus in a manifest; no image is opened.

    An archive that cannot be read is one row of no label and no set; extraction records it as failed, with the reason.

    Args:
        corpus: the corpus's name; a corpus without set folders has one set of this name.
        root: folder of images, archive, list of images, or pattern of archives; local or a URL.
        layout: a name in ``LAYOUTS``, "list", or "auto".
        reals: a second root of real images, shared by the sets that have none of their own.
        classes: names of the classes; None for the built-in ones.
        sets: the test sets that are listed, in the order of tables; None for all.
        splits: the splits that are listed; None for all.
        categories: the categories that are listed, such as LSUN classes; None for all.
        out: where the manifest is written; None returns it only.
        reporter: gets the progress.
        strict: refuse an archive that cannot be read, and a list or pattern of which a file is missing.

    Raises:
        DataError: a root is missing, has no image, or a file's class cannot be told.
        SettingError: the layout is not known.
    """
    scan = _Scan(corpus, layout_name(layout), Sources.of(root, reals), ClassNames(classes), strict=strict)
    with (reporter or SilentReporter()).progress(f"scan {corpus}", None, "files") as progress:
        found = scan.read(progress)
    assigned = with_sets([_named(labels, corpus) for _, labels in found])
    chosen = []
    for (folder, _), labels in zip(found, assigned, strict=True):
        listed = selected(labels, sets, splits, categories)
        if listed is None:
            scan.skipped["image(s) of another set, split or category"] += len(folder)
        else:
            chosen.append((folder, listed))
    if not chosen:
        raise DataError(
            f"corpus {corpus!r}: none of {sum(len(folder) for folder, _ in found)} images below {scan.sources.root} is "
            "in the sets, splits and categories asked for; it has the sets "
            + ", ".join(sorted({name for labels in assigned for name in labels.sets}))
        )
    table = _table([*chosen, *((folder, FolderLabels(None)) for folder in scan.failed)])
    if scan.missing:
        table = table.replace_schema_metadata({MISSING_KEY: json.dumps(scan.missing)})
    if out is not None:
        write_manifest(table, out)
    return table, summarise(
        chosen, sets or (), layout=scan.layout, decided=scan.decided, skipped=scan.skipped, warnings=scan.warnings
    )


class _Scan:
    """One scan under way: what it leaves out, cannot read, and has to warn of."""

    def __init__(self, corpus: str, layout: str, sources: Sources, names: ClassNames, *, strict: bool) -> None:
        self.corpus, self.layout, self.sources, self.names, self.strict = corpus, layout, sources, names, strict
        self.decided = ""
        self.skipped: Counter[str] = Counter()
        self.failed: list[Folder] = []  # archives that cannot be read
        self.missing: list[str] = []  # folders of generators and sets without images
        self.warnings: list[str] = []

    def read(self, progress: Progress) -> list[tuple[Folder, FolderLabels]]:
        """Return the folders with images below both roots, with what the layout says of them."""
        root, reals = self.sources.root, self.sources.reals
        for each in filter(None, (root, reals)):
            self._check_root(each)
        folders: list[Folder] = []
        empty: list[Folder] = []
        if self.layout == "list" or (self.layout == "auto" and is_one_file(root) and is_list(root)):
            found, self.failed, absent = read_list(self.sources, self.names, self.skipped, progress)
            self.decided = "the root is a file with the columns path and label" if self.layout == "auto" else ""
            self.layout = "list"
            if absent:
                self._leave_out_missing(absent, "of the list")
        else:
            folders, empty = self._walk(root, progress)
        shared = [] if reals is None else self._walk(reals, progress, prefix=REALS)[0]
        self.names.check_all_met(self.corpus, root)
        if folders:
            if self.layout == "auto":
                name = root.rstrip("/").rpartition("/")[2]
                self.layout, self.decided = recognise(
                    folders, self.names, self.corpus, name, has_reals=reals is not None
                )
            self.warnings += twins(folders)
            found = self._labelled(folders, root)
            if missing := missing_folders(empty, folders, self.layout):
                shown = some([folder.prefix for folder in missing])
                self.warnings.append(f"no image in {shown}: missing from the corpus")
                sets = {name for _, labels in found for name in labels.sets}
                self.missing = [folder.prefix for folder in missing if self._is_set(folder, sets)]
        check_splits(found, self.layout, self.corpus, root)
        found += self._labelled(shared, reals or "")
        if self.failed:
            archives = [f"{folder.path(folder.names[0])} ({folder.error})" for folder in self.failed]
            shown = "; ".join(archives[:10]) + ("; ..." if len(archives) > 10 else "")
            self._complain(f"{len(archives)} archive(s) cannot be read, each is one failed image: {shown}")
        if not found:
            raise DataError(f"corpus {self.corpus!r}: no image below {root} is of a class that is listed")
        self.warnings += linked_twice(found, self.sources, self.corpus)
        return found

    def _complain(self, line: str) -> None:
        self.warnings.append(line)
        if self.strict:
            raise DataError(f"corpus {self.corpus!r}: {line} (--strict)")

    def _leave_out_missing(self, files: Sequence[str], of_what: str) -> None:
        self.skipped[MISSING] += len(files)
        self._complain(f"{len(files)} file(s) {of_what} do not exist and were left out: {some(files)}")

    def _check_root(self, root: str) -> None:
        is_file = is_one_file(root) and root.lower().endswith((*ARCHIVE_EXTENSIONS, *LIST_EXTENSIONS))
        if not (is_url(root) or is_file or is_pattern(root) or os.path.isdir(root)):  # noqa: PTH112 - as everywhere
            state = "is a file" if is_one_file(root) else "does not exist"
            raise DataError(
                f"corpus {self.corpus!r}: {root} {state}; expected a folder of images, an archive (.zip, .tar, "
                ".parquet), a list of images (.csv, .tsv, .parquet), or a pattern such as {000..012}.tar"
            )

    def _walk(self, root: str, progress: Progress, *, prefix: str = "") -> tuple[list[Folder], list[Folder]]:
        """Return the folders with images, their paths read, and the empty ones at the end of a path."""
        here: Counter[str] = Counter()
        absent: list[str] = []

        def left_out(kind: str, path: str) -> None:
            if kind == UNREADABLE:
                raise DataError(
                    f"corpus {self.corpus!r}: {self.sources.where(path)} may not be read; change its permissions"
                )
            if kind == MISSING:
                absent.append(path)
            else:
                here[kind] += 1

        found: list[Folder] = []
        classes = None if self.layout == "unlabelled" else self.names
        try:
            for folder in walk(root, left_out, prefix=prefix, classes=classes):
                found.append(folder)
                progress.advance(len(folder))
        except (ImportError, ValueError) as error:
            if isinstance(error, DataError) or not is_url(root):
                raise
            # fsspec's message names the package that is missing, or the protocol that nobody knows
            raise SettingError(f"corpus {self.corpus!r}: {root} cannot be read: {error}") from error
        found, lines, unpacked = without_unpacked(found)
        self.warnings += lines
        if unpacked:
            here["archive beside its unpacked folder"] = unpacked
        failed = [folder for folder in found if folder.error is not None]
        folders = [folder for folder in found if folder.error is None]
        with_images = [folder for folder in folders if len(folder)]
        if not with_images:
            seen = [f"{count} {kind}" for kind, count in sorted((here + Counter({MISSING: len(absent)})).items())]
            seen += [str(folder.error) for folder in failed]
            raise DataError(
                f"corpus {self.corpus!r}: no image file below {root} ({', '.join(seen[:KINDS_SHOWN]) or 'it is empty'}"
                "); expected files with an extension such as .jpg or .png, or archives of them; check the path"
            )
        self.skipped.update(here)
        self.failed += failed
        if absent:
            self._leave_out_missing(absent, f"of {root}")
        if self.layout != "unlabelled":
            read_paths(folders, self.names, self.corpus, root)
        return with_images, [folder for folder in folders if not len(folder)]

    def _labelled(self, folders: Sequence[Folder], root: str) -> list[tuple[Folder, FolderLabels]]:
        """Pair folders with what the layout says of them."""
        found = []
        layout = LAYOUTS.get(self.layout, LAYOUTS["folder"])  # a list has none
        for folder in folders:
            labels = BY_CLASS if folder.label == LEFT_OUT else self._labels(folder)
            if isinstance(labels, str):
                self.skipped[labels] += len(folder)
            elif labels is not None:
                found.append((folder, labels))
            else:
                expects = "real images only" if folder.is_shared else layout.expects
                way_out = how_to_name(unnamed(folders))
                raise DataError(
                    f"corpus {self.corpus!r}: layout {self.layout!r} cannot tell whether the {len(folder)} image(s) in "
                    f"{folder.prefix or 'the root'} below {root} are real or synthetic, as in {folder.names[0]!r}; "
                    f"expected {expects}; rename or move the folder, or choose another layout{way_out}"
                )
        return found

    def _is_set(self, folder: Folder, sets: set[str]) -> bool:
        """Tell whether a folder without images would have been a test set beside ``sets``."""
        labels = self._labels(folder) if folder.label == 1 else None
        return folder.label != 0 and not (isinstance(labels, FolderLabels) and sets.issuperset(labels.sets))

    def _labels(self, folder: Folder) -> FolderLabels | str | None:
        """Return what the layout says of a folder; below the second root all is real, and shared by sets without."""
        if not folder.is_shared:
            return LAYOUTS[self.layout].labels(folder)
        if folder.label == 1:
            return None
        if self.layout == "drct-2m" and folder.split not in ("train", "val") and folder.folders:  # MSCOCO's others
            return "shared real image(s) outside train2017 and val2017"
        return FolderLabels(0, split=folder.split, pool=SHARED)


def _named(labels: FolderLabels, corpus: str) -> FolderLabels:
    """Put the corpus's name where the layout says that the corpus itself is a set or generator."""
    generator = corpus if labels.generator == "" else labels.generator
    return replace(labels, generator=generator, sets=tuple(name or corpus for name in labels.sets))


def _table(chosen: Sequence[tuple[Folder, FolderLabels]]) -> pa.Table:
    """Make the manifest, column by column and in its order; the names of the files are given up on the way.

    Of 25 million rows one more copy, or their names as Python objects, are gigabytes.
    """

    def paths() -> Iterator[str]:
        for folder, _ in chosen:
            yield from map(folder.path, folder.names)
            folder.names.clear()

    folder_of = np.repeat(np.arange(len(chosen)), [len(folder) for folder, _ in chosen])
    path = pa.array(paths(), pa.large_string(), size=len(folder_of))
    order = pc.sort_indices(path)
    columns = {"path": path.take(order)}
    del path
    for name, numbers in (("size_bytes", "sizes"), ("mtime_ns", "mtimes")):
        columns[name] = pa.array(np.concatenate([getattr(folder, numbers) for folder, _ in chosen])).take(order)
    folder_of = pa.array(folder_of).take(order)
    for name in ("label", "generator", "split", "sets", "category"):
        values = [getattr(labels, name) for _, labels in chosen]
        columns[name] = pa.array(values, MANIFEST_SCHEMA.field(name).type).take(folder_of)
    return manifest_table(pa.table([columns[name] for name in MANIFEST_SCHEMA.names], schema=MANIFEST_SCHEMA))
