"""Scan one corpus into its manifest."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from stages.scan.checks import check_classes, check_splits, linked_twice, missing_folders, twins, without_unpacked
from stages.scan.layouts import LAYOUTS, layout_name, recognise
from stages.scan.listed import LIST_EXTENSIONS, is_list, read_list
from stages.scan.place import LeftOut, Place, class_at, read_splits
from stages.scan.sharing import SHARED, Keep, one_class_sets, with_sets
from stages.scan.walk import walk
from storage.archives import ARCHIVE_EXTENSIONS, is_url
from storage.errors import DataError, SettingError
from storage.manifest import MANIFEST_SCHEMA, manifest_table, write_manifest
from storage.sources import Sources, is_one_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.reporter import Progress, Reporter
    from stages.scan.found import Folder


_ERRORS_SHOWN = 10  # of many archives
_KINDS_SHOWN = 20
_MOST_MEMBERSHIPS = 50_000_000  # a manifest of that size is still read in seconds


@dataclass(frozen=True)
class ScanSummary:
    """What a scan found.

    Attributes:
        real: number of real images.
        fake: number of synthetic images.
        unlabelled: number of images without a label.
        sets: names of the test sets.
        skipped: what was left out: kind -> number of entries.
        layout: the layout used.
        decided: how it was chosen; empty where it was named.
        warnings: what the user should look at before trusting numbers, one line each.
        is_divided: whether any image is of a split, or no image could be trained on.
    """

    real: int
    fake: int
    unlabelled: int
    sets: tuple[str, ...]
    skipped: dict[str, int]
    layout: str
    decided: str = ""
    warnings: tuple[str, ...] = ()
    is_divided: bool = True

    def __str__(self) -> str:
        """A few lines for the terminal."""
        counts = f"{self.real} real, {self.fake} synthetic"
        counts += f", {self.unlabelled} unlabelled" if self.unlabelled else ""
        kinds = [f"{count} {kind}" for kind, count in sorted(self.skipped.items())]
        left_out = ", ".join(kinds[:_KINDS_SHOWN]) + (", ..." if len(kinds) > _KINDS_SHOWN else "")
        shown = ", ".join(self.sets[:40]) + (f" and {len(self.sets) - 40} more" if len(self.sets) > 40 else "")
        sets = f"{len(self.sets)} {'set' if len(self.sets) == 1 else 'sets'}: {shown}"
        lines = [f"{counts}; {sets}" + (f"; left out: {left_out}" if left_out else "")]
        if self.decided:
            lines.insert(0, f"layout {self.layout}: {self.decided}")
        if not self.is_divided:
            lines.append(
                "no split: if `train_on` names this corpus, all its images but the share held out for validation "
                "are trained on; do not evaluate on it then (docs/data.md lists the names of splits)"
            )
        return "\n".join(lines)


def run(
    *,
    corpus: str,
    root: Path | str,
    layout: str,
    reals: Path | str | None = None,
    keep: Keep | None = None,
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
        keep: which part of the corpus is listed; None for all of it.
        out: where the manifest is written; None returns it only.
        reporter: gets the progress; None for none.
        strict: refuse an archive that cannot be read.

    Raises:
        DataError: a root is missing, has no image, or a file's class cannot be told.
        SettingError: the layout is not known.
    """
    layout_name(layout)
    sources = Sources.of(root, reals)
    keep = keep or Keep()
    for place in filter(None, (sources.root, sources.reals)):
        _check_root(place, corpus)
    decided, warnings = "", []
    skipped: Counter[str] = Counter()
    progress = nullcontext(_Silent()) if reporter is None else reporter.progress(f"scan {corpus}", None, "files")
    with progress as counter:
        if layout == "list" or (layout == "auto" and is_one_file(sources.root) and is_list(sources.root)):
            found, failed = read_list(sources, counter)
            decided = "the root is a file with the columns path and label" if layout == "auto" else ""
            layout = "list"
        else:
            folders, empty, failed, lines = _walk(sources.root, skipped, counter, corpus, layout)
            if layout != "unlabelled":
                check_classes(folders, corpus, sources.root)
                read_splits(folders, corpus, sources.root)
            if layout == "auto":
                layout, decided = recognise(folders, corpus, sources.root.rstrip("/").rpartition("/")[2])
            found = _placed(folders, layout, corpus, sources.root, skipped)
            warnings = lines + missing_folders(empty, folders, layout) + twins(folders)
        check_splits(found, layout, corpus, sources.root)
        if sources.reals is not None:
            shared, _, broken, lines = _walk(sources.reals, skipped, counter, corpus, layout, is_shared=True)
            failed, warnings = failed + broken, warnings + lines
            check_classes(shared, corpus, sources.reals)
            found += _placed(shared, layout, corpus, sources.reals, skipped)
    if failed:
        broken_archives = [f"{folder.path(folder.names[0])} ({folder.error})" for folder in failed]
        shown = "; ".join(broken_archives[:_ERRORS_SHOWN]) + ("; ..." if len(failed) > _ERRORS_SHOWN else "")
        warnings = [*warnings, f"{len(failed)} archive(s) cannot be read, each is one failed image: {shown}"]
        if strict:
            raise DataError(f"corpus {corpus!r}: {warnings[-1]} (--strict)")
    warnings += linked_twice(found, sources, corpus)
    places = with_sets([_named(place, corpus) for _, place in found], keep)
    chosen = [(folder, place) for (folder, _), place in zip(found, places, strict=True) if place is not None]
    left_out = sum(len(folder) for (folder, _), place in zip(found, places, strict=True) if place is None)
    if left_out:
        skipped["image of another set, split or category"] = left_out
    if not chosen:
        sets = sorted({name for _, place in found for name in _named(place, corpus).sets})
        raise DataError(
            f"corpus {corpus!r}: none of {left_out} images below {sources.root} is in the sets, splits and categories "
            f"asked for; it has the sets {', '.join(sets)}"
        )
    table = _table([*chosen, *((folder, Place(None)) for folder in failed)])
    if out is not None:
        write_manifest(table, out)
    return table, _summary(chosen, skipped, layout, decided, keep, warnings=warnings)


class _Silent:
    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Show nothing."""


def _check_root(root: str, corpus: str) -> None:
    if is_url(root) or (is_one_file(root) and root.lower().endswith((*ARCHIVE_EXTENSIONS, *LIST_EXTENSIONS))):
        return
    if not os.path.isdir(root):  # noqa: PTH112 - names may hold bytes that are not UTF-8
        state = "is a file" if is_one_file(root) else "does not exist"
        raise DataError(
            f"corpus {corpus!r}: {root} {state}; expected a folder of images, an archive (.zip, .tar, .parquet) or a "
            "list of images (.csv, .tsv, .parquet)"
        )


def _walk(
    root: str, skipped: Counter[str], counter: Progress, corpus: str, layout: str, *, is_shared: bool = False
) -> tuple[list[Folder], list[Folder], list[Folder], list[str]]:
    """Return the folders with images, the empty ones at the end of a path, unreadable archives, and warnings."""
    here: Counter[str] = Counter()
    found: list[Folder] = []
    try:
        for folder in walk(root, here, is_shared=is_shared, read_labels=layout != "unlabelled"):
            found.append(folder)
            counter.advance(len(folder))
    except PermissionError as error:
        raise DataError(f"corpus {corpus!r}: {error.filename} may not be read; change its permissions") from error
    except (ImportError, ValueError) as error:
        if isinstance(error, DataError) or not is_url(root):
            raise
        # fsspec's message names the package that is missing, or the protocol that nobody knows
        raise SettingError(f"corpus {corpus!r}: {root} cannot be read: {error}") from error
    found, warnings, unpacked = without_unpacked(found)
    if unpacked:
        here["archive beside its unpacked folder"] = unpacked
    failed = [folder for folder in found if folder.error is not None]
    folders = [folder for folder in found if len(folder) and folder.error is None]
    if not folders:
        seen = [f"{count} {kind}" for kind, count in sorted(here.items())] + [str(folder.error) for folder in failed]
        raise DataError(
            f"corpus {corpus!r}: no image file below {root} ({', '.join(seen[:_KINDS_SHOWN]) or 'it is empty'}); "
            "expected files with an extension such as .jpg or .png, or archives of them; check the path"
        )
    skipped.update(here)
    return folders, [folder for folder in found if not len(folder)], failed, warnings


def _placed(
    folders: Sequence[Folder], layout: str, corpus: str, root: str, skipped: Counter[str]
) -> list[tuple[Folder, Place]]:
    """Pair folders with what the layout says of them."""
    found = []
    for folder in folders:
        if folder.is_shared:
            place, expects = _place_shared(folder, layout), "real images only"
        else:
            place, expects = LAYOUTS[layout].place(folder), LAYOUTS[layout].expects
        if place is None:
            raise DataError(
                f"corpus {corpus!r}: layout {layout!r} cannot tell whether the {len(folder)} image(s) in "
                f"{folder.place or 'the root'} below {root} are real or synthetic, as in {folder.names[0]!r}; expected "
                f"{expects}; rename or move the folder, or choose another layout"
            )
        if isinstance(place, LeftOut):
            skipped[place.kind] += len(folder)
        else:
            found.append((folder, place))
    return found


def _place_shared(folder: Folder, layout: str) -> Place | LeftOut | None:
    """Say what images below the second root are: real, for all sets of their split without reals of their own."""
    found = class_at(folder.parts)
    if found is not None and found[1] == 1:
        return None
    if layout == "drct-2m" and folder.split not in ("train", "val") and folder.folders:  # MSCOCO's other images
        return LeftOut("shared real image outside train2017 and val2017")
    return Place(0, split=folder.split, pool=SHARED)


def _named(place: Place, corpus: str) -> Place:
    """Put the corpus's name where the layout says that the corpus itself is a set or generator."""
    generator = corpus if place.generator == "" else place.generator
    return replace(place, generator=generator, sets=tuple(name or corpus for name in place.sets))


def _table(chosen: Sequence[tuple[Folder, Place]]) -> pa.Table:
    """Make the manifest, column by column: a million rows as Python objects would take gigabytes."""
    lengths = np.array([len(folder) for folder, _ in chosen])
    memberships = int(lengths @ np.array([len(place.sets) for _, place in chosen]))
    if memberships > _MOST_MEMBERSHIPS:
        raise DataError(
            f"{int(lengths.sum())} images are {memberships} times in a test set, more than {_MOST_MEMBERSHIPS}: real "
            "images are shared by too many sets; give each generator its own, or list fewer sets with --sets or `sets`"
        )
    folder_of = pa.array(np.repeat(np.arange(len(chosen)), lengths))
    columns = {
        "path": pa.chunked_array(
            [[folder.path(name) for name in folder.names] for folder, _ in chosen], pa.large_string()
        ).combine_chunks(),
        "size_bytes": pa.array(np.concatenate([np.asarray(folder.sizes) for folder, _ in chosen])),
        "mtime_ns": pa.array(np.concatenate([np.asarray(folder.mtimes) for folder, _ in chosen])),
    }
    for name in ("label", "generator", "split", "category"):
        values = [getattr(place, name) for _, place in chosen]
        columns[name] = pa.array(values, MANIFEST_SCHEMA.field(name).type).take(folder_of)
    columns["sets"] = pa.array([list(place.sets) for _, place in chosen], pa.list_(pa.large_string())).take(folder_of)
    return manifest_table(pa.table([columns[name] for name in MANIFEST_SCHEMA.names], schema=MANIFEST_SCHEMA))


def _summary(
    chosen: Sequence[tuple[Folder, Place]],
    skipped: Counter[str],
    layout: str,
    decided: str,
    keep: Keep,
    *,
    warnings: Sequence[str],
) -> ScanSummary:
    counts: Counter[int | None] = Counter()
    for folder, place in chosen:
        counts[place.label] += len(folder)
    sets = {name for _, place in chosen for name in place.sets}
    order = {name: at for at, name in enumerate(keep.sets or ())}
    warnings = [
        *warnings,
        *(
            f"set {name} has no {lacks} image: AP, AUC and accuracy are undefined"
            + ("; name the folder of its reals with --reals or in `reals`" if lacks == "real" else "")
            for name, lacks in one_class_sets([place for _, place in chosen]).items()
        ),
    ]
    warnings += [f"set {name} was asked for and has no image" for name in order if name not in sets]
    idle = sum(len(folder) for folder, place in chosen if not place.sets)
    if idle:
        warnings.append(f"{idle} image(s) are in no test set: they are real, and every set has real images of its own")
    unpacked = skipped.get("archive that has to be unpacked first", 0)
    if unpacked:
        warnings.append(f"{unpacked} archive(s) cannot be read in place and were left out; unpack them and scan again")
    return ScanSummary(
        real=counts[0],
        fake=counts[1],
        unlabelled=counts[None],
        sets=tuple(sorted(sets, key=lambda name: (order.get(name, len(order)), name))),
        skipped=dict(skipped),
        layout=layout,
        decided=decided,
        warnings=tuple(warnings),
        is_divided=any(place.split for _, place in chosen) or not (counts[0] or counts[1]),
    )
