"""Scan one corpus into its manifest."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stages.reporter import SilentReporter
from stages.scan.assign import SHARED, Selection, one_class_sets, with_sets
from stages.scan.checks import check_splits, linked_twice, missing_folders, some, twins, without_unpacked
from stages.scan.classes import LEFT_OUT, ClassNames, how_to_name
from stages.scan.folder import FolderLabels, read_paths
from stages.scan.layouts import LAYOUTS, layout_name, recognise, unnamed
from stages.scan.listed import LIST_EXTENSIONS, is_list, read_list
from stages.scan.packed import BY_CLASS
from stages.scan.summary import KINDS_SHOWN, ScanSummary
from stages.scan.walk import CLOSED, UNREADABLE, walk
from storage.archives import ARCHIVE_EXTENSIONS
from storage.errors import DataError, SettingError
from storage.manifest import MANIFEST_SCHEMA, manifest_table, write_manifest
from storage.names import REALS
from storage.remote import is_url
from storage.sources import Sources, is_one_file

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    selection: Selection | None = None,
    out: Path | None = None,
    reporter: Reporter | None = None,
    strict: bool = False,
) -> tuple[pa.Table, ScanSummary]:
    """List the images of a corpus in a manifest; no image is opened.

    An archive that cannot be read is one row of no label and no set; extraction records it as failed, with the reason.

    Args:
        corpus: the corpus's name; a corpus without set folders has one set of this name.
        root: folder of images, archive, or list of images; local or a URL.
        layout: a name in ``LAYOUTS``, "list", or "auto".
        reals: a second root of real images, shared by the sets that have none of their own.
        classes: names of the classes; None for the built-in ones.
        selection: which part of the corpus is listed; None for all of it.
        out: where the manifest is written; None returns it only.
        reporter: gets the progress; None for none.
        strict: refuse an archive that cannot be read, or a list of which a file is missing.

    Raises:
        DataError: a root is missing, has no image, or a file's class cannot be told.
        SettingError: the layout is not known.
    """
    scanned = _Scan(corpus, layout_name(layout), Sources.of(root, reals), ClassNames(classes), strict=strict)
    with (reporter or SilentReporter()).progress(f"scan {corpus}", None, "files") as progress:
        found = scanned.read(progress)
    selection = selection or Selection()
    assigned = with_sets([_named(labels, corpus) for _, labels in found], selection)
    chosen = [(folder, labels) for (folder, _), labels in zip(found, assigned, strict=True) if labels is not None]
    left_out = sum(len(folder) for (folder, _), labels in zip(found, assigned, strict=True) if labels is None)
    if left_out:
        scanned.skipped["image of another set, split or category"] = left_out
    if not chosen:
        sets = sorted({name for _, labels in found for name in _named(labels, corpus).sets})
        raise DataError(
            f"corpus {corpus!r}: none of {left_out} images below {scanned.sources.root} is in the sets, splits and "
            f"categories asked for; it has the sets {', '.join(sets)}"
        )
    table = _table([*chosen, *((folder, FolderLabels(None)) for folder in scanned.failed)])
    if out is not None:
        write_manifest(table, out)
    return table, scanned.summary(chosen, selection)


class _Scan:
    """One scan under way: what it leaves out, cannot read, and has to warn of."""

    def __init__(self, corpus: str, layout: str, sources: Sources, names: ClassNames, *, strict: bool) -> None:
        self.corpus, self.layout, self.sources, self.names, self.strict = corpus, layout, sources, names, strict
        self.decided = ""
        self.skipped: Counter[str] = Counter()
        self.failed: list[Folder] = []  # archives that cannot be read
        self.warnings: list[str] = []

    def read(self, progress: Progress) -> list[tuple[Folder, FolderLabels]]:
        """Return the folders with images below both roots, with what the layout says of them."""
        root, reals = self.sources.root, self.sources.reals
        for each in filter(None, (root, reals)):
            self._check_root(each)
        missing: list[str] = []
        shared: list[Folder] = []
        if self.layout == "list" or (self.layout == "auto" and is_one_file(root) and is_list(root)):
            found, self.failed, missing = read_list(self.sources, self.names, self.skipped, progress)
            self.names.check_all_met(self.corpus, root)
            self.decided = "the root is a file with the columns path and label" if self.layout == "auto" else ""
            self.layout = "list"
            if reals is not None:
                shared, _ = self._walk(reals, progress, prefix=REALS)
        else:
            folders, empty = self._walk(root, progress)
            self.warnings += twins(folders)
            if reals is not None:
                shared, _ = self._walk(reals, progress, prefix=REALS)
            self.names.check_all_met(self.corpus, root)
            if self.layout == "auto":
                name = root.rstrip("/").rpartition("/")[2]
                self.layout, self.decided = recognise(folders, self.names, self.corpus, name)
            found = self._labelled(folders, root)
            self.warnings += missing_folders(empty, folders, self.layout)
        check_splits(found, self.layout, self.corpus, root)
        found += self._labelled(shared, reals or "")
        if missing:
            self.skipped["missing file"] = len(missing)
            self._complain(f"{len(missing)} file(s) of the list do not exist and were left out: {some(missing)}")
        if self.failed:
            archives = [f"{folder.path(folder.names[0])} ({folder.error})" for folder in self.failed]
            shown = "; ".join(archives[:10]) + ("; ..." if len(archives) > len(archives[:10]) else "")
            self._complain(f"{len(archives)} archive(s) cannot be read, each is one failed image: {shown}")
        if not found:
            raise DataError(f"corpus {self.corpus!r}: no image below {root} is of a class that is listed")
        self.warnings += linked_twice(found, self.sources, self.corpus)
        return found

    def _complain(self, line: str) -> None:
        self.warnings.append(line)
        if self.strict:
            raise DataError(f"corpus {self.corpus!r}: {line} (--strict)")

    def _check_root(self, root: str) -> None:
        if is_url(root) or (is_one_file(root) and root.lower().endswith((*ARCHIVE_EXTENSIONS, *LIST_EXTENSIONS))):
            return
        if not os.path.isdir(root):  # noqa: PTH112 - names may hold bytes that are not UTF-8
            state = "is a file" if is_one_file(root) else "does not exist"
            raise DataError(
                f"corpus {self.corpus!r}: {root} {state}; expected a folder of images, an archive (.zip, .tar, "
                ".parquet) or a list of images (.csv, .tsv, .parquet)"
            )

    def _walk(self, root: str, progress: Progress, *, prefix: str = "") -> tuple[list[Folder], list[Folder]]:
        """Return the folders with images, their paths read, and the empty ones at the end of a path."""
        here: Counter[str] = Counter()

        def left_out(kind: str, path: str) -> None:
            if kind == UNREADABLE:
                raise DataError(
                    f"corpus {self.corpus!r}: {self.sources.where(path)} may not be read; change its permissions"
                )
            here[kind] += 1

        found: list[Folder] = []
        try:
            for folder in walk(
                root, left_out, prefix=prefix, classes=None if self.layout == "unlabelled" else self.names
            ):
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
            seen = [f"{count} {kind}" for kind, count in sorted(here.items())] + [str(each.error) for each in failed]
            raise DataError(
                f"corpus {self.corpus!r}: no image file below {root} ({', '.join(seen[:KINDS_SHOWN]) or 'it is empty'}"
                "); expected files with an extension such as .jpg or .png, or archives of them; check the path"
            )
        self.skipped.update(here)
        self.failed += failed
        if self.layout != "unlabelled":
            read_paths(folders, self.names, self.corpus, root)
        return with_images, [folder for folder in folders if not len(folder)]

    def _labelled(self, folders: Sequence[Folder], root: str) -> list[tuple[Folder, FolderLabels]]:
        """Pair folders with what the layout says of them."""
        found = []
        layout = LAYOUTS.get(self.layout, LAYOUTS["folder"])  # a list has none
        for folder in folders:
            if folder.label == LEFT_OUT:
                self.skipped[BY_CLASS] += len(folder)
                continue
            labels = self._shared_labels(folder) if folder.is_shared else layout.labels(folder)
            if labels is None:
                expects = "real images only" if folder.is_shared else layout.expects
                way_out = how_to_name(unnamed(folders))
                raise DataError(
                    f"corpus {self.corpus!r}: layout {self.layout!r} cannot tell whether the {len(folder)} image(s) in "
                    f"{folder.prefix or 'the root'} below {root} are real or synthetic, as in {folder.names[0]!r}; "
                    f"expected {expects}; rename or move the folder, or choose another layout{way_out}"
                )
            if isinstance(labels, str):
                self.skipped[labels] += len(folder)
            else:
                found.append((folder, labels))
        return found

    def _shared_labels(self, folder: Folder) -> FolderLabels | str | None:
        """Say what images below the second root are: real, for all sets of their split without reals of their own."""
        if folder.label == 1:
            return None
        if self.layout == "drct-2m" and folder.split not in ("train", "val") and folder.folders:  # MSCOCO's others
            return "shared real image outside train2017 and val2017"
        return FolderLabels(0, split=folder.split, pool=SHARED)

    def summary(self, chosen: Sequence[tuple[Folder, FolderLabels]], selection: Selection) -> ScanSummary:
        """Return what was found, with all warnings."""
        counts: Counter[int | None] = Counter()
        for folder, labels in chosen:
            counts[labels.label] += len(folder)
        sets = {name for _, labels in chosen for name in labels.sets}
        order = {name: at for at, name in enumerate(selection.sets or ())}
        warnings = list(self.warnings)
        for name, lacks in one_class_sets([labels for _, labels in chosen]).items():
            way_out = "; name the folder of its reals with --reals or in `reals`" if lacks == "real" else ""
            warnings.append(f"set {name} has no {lacks} image: AP, AUC and accuracy are undefined{way_out}")
        warnings += [f"set {name} was asked for and has no image" for name in order if name not in sets]
        idle = sum(len(folder) for folder, labels in chosen if not labels.sets)
        if idle:
            warnings.append(
                f"{idle} image(s) are in no test set: they are real, and every set has real images of its own"
            )
        closed = self.skipped[CLOSED]
        if closed:
            warnings.append(
                f"{closed} archive(s) cannot be read in place and were left out; unpack them and scan again"
            )
        return ScanSummary(
            real=counts[0],
            fake=counts[1],
            unlabelled=counts[None],
            sets=tuple(sorted(sets, key=lambda name: (order.get(name, len(order)), name))),
            skipped={kind: count for kind, count in self.skipped.items() if count},
            layout=self.layout,
            decided=self.decided,
            warnings=tuple(warnings),
            is_divided=any(labels.split for _, labels in chosen) or not (counts[0] or counts[1]),
        )


def _named(labels: FolderLabels, corpus: str) -> FolderLabels:
    """Put the corpus's name where the layout says that the corpus itself is a set or generator."""
    generator = corpus if labels.generator == "" else labels.generator
    return replace(labels, generator=generator, sets=tuple(name or corpus for name in labels.sets))


def _table(chosen: Sequence[tuple[Folder, FolderLabels]]) -> pa.Table:
    """Make the manifest, column by column: a million rows as Python objects would take gigabytes."""
    folder_of = pa.array(np.repeat(np.arange(len(chosen)), [len(folder) for folder, _ in chosen]))
    columns = {
        "path": pa.chunked_array(
            [[folder.path(name) for name in folder.names] for folder, _ in chosen], pa.large_string()
        ).combine_chunks(),
        "size_bytes": pa.array(np.concatenate([np.asarray(folder.sizes) for folder, _ in chosen])),
        "mtime_ns": pa.array(np.concatenate([np.asarray(folder.mtimes) for folder, _ in chosen])),
    }
    for name in ("label", "generator", "split", "category"):
        values = [getattr(labels, name) for _, labels in chosen]
        columns[name] = pa.array(values, MANIFEST_SCHEMA.field(name).type).take(folder_of)
    columns["sets"] = pa.array([list(labels.sets) for _, labels in chosen], pa.list_(pa.large_string())).take(folder_of)
    return manifest_table(pa.table([columns[name] for name in MANIFEST_SCHEMA.names], schema=MANIFEST_SCHEMA))
