"""What is to be made: images that are new, or no longer what was extracted, cut into shards.

An image is known by path, size and time, and where these prove nothing by its content.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from stages.extract.align import QUALITY
from stages.extract.read_image import UNREAD
from storage import unfinished
from storage.atomic import write_text
from storage.errors import DataError
from storage.index import IDENTITY
from storage.names import to_text
from storage.remote import ArchiveError, is_url
from storage.threads import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from stages.extract.settings import Runtime
    from stages.reporter import Reporter
    from storage.corpus_folder import CorpusFolder
    from storage.sources import Sources

    # path -> sha256 of an image's bytes, None where they cannot be read
    ContentHash = Callable[[str], str | None]

_FILES_AT_ONCE = 1024  # that one thread looks at
ROOTS_NAME = "roots.txt"  # where the images of a folder of shards were read


@dataclass(frozen=True)
class ShardPlan:
    """The images of one shard, and the views that lack just these images.

    Attributes:
        images: path, size and time of each, from the manifest; and where it has that, ``align.QUALITY``.
        shards: number of a view -> number of the shard that it becomes there.
    """

    images: pa.Table
    shards: dict[int, int]


def plan_missing(
    folders: Sequence[CorpusFolder], images: pa.Table, sources: Sources, reporter: Reporter, runtime: Runtime
) -> list[ShardPlan]:
    """Drop from the folders of a corpus's views what is stale, and plan the shards of what they lack then.

    The caller holds the folders' locks.

    Raises:
        DataError: an image that has to be read is gone, or has another size than the manifest says.
    """
    content_hash = cache(partial(_hash_content, sources))  # each image is read once for all views
    check = runtime.check_content
    missing = [
        _drop_stale(folder, images, sources, reporter, content_hash=content_hash, check_content=check)
        for folder in folders
    ]
    files = images.select(["path", "size_bytes"]).take(np.unique(np.concatenate(missing)))
    _check_on_disk(files, sources, folders[0].corpus)
    return plan_shards(images, missing, [folder.free_numbers() for folder in folders], runtime.shard_size)


def plan_shards(
    manifest: pa.Table, missing: Sequence[NDArray[np.int64]], numbers: Sequence[Iterator[int]], shard_size: int
) -> list[ShardPlan]:
    """Cut what each view lacks into shards, at places that depend on nothing else.

    Args:
        manifest: of the corpus.
        missing: per view, the numbers of the manifest's rows it lacks, ascending.
        numbers: per view, its free shard numbers.
        shard_size: images a shard.

    Returns:
        The plans, in manifest order. Views that lack the same images share a plan, so those are decoded once.
    """
    images = manifest.select([name for name in (*IDENTITY, QUALITY) if name in manifest.column_names])
    plans: dict[bytes, ShardPlan] = {}
    for view, rows in enumerate(missing):
        for start in range(0, len(rows), shard_size):
            part = rows[start : start + shard_size]
            plan = plans.setdefault(part.tobytes(), ShardPlan(images.take(part), {}))
            plan.shards[view] = next(numbers[view])
    return sorted(plans.values(), key=lambda plan: plan.images["path"][0].as_py())


def _drop_stale(
    folder: CorpusFolder,
    manifest: pa.Table,
    sources: Sources,
    reporter: Reporter,
    *,
    content_hash: ContentHash,
    check_content: bool,
) -> NDArray[np.int64]:
    """Read a folder, drop from it what has to be extracted again, and return (M,) the rows of the manifest it lacks.

    Dropped are images that could not be read when they were extracted and can be now: a permission or a network that
    failed once must not leave an image out for ever. And, where contents are compared, images whose content is no
    longer what was extracted; a file that is gone counts as changed, the run then says so. Contents are also compared
    where the finished ones were read below other roots, since unpacked archives give equal paths, sizes and times.

    A file that was only touched or copied keeps its features: where path and size agree, the hash decides, and its
    new time is written down, so that the next run need not read it again.

    Args:
        folder: of one view; the caller holds its lock.
        manifest: the images wanted.
        sources: where they lie.
        reporter: gets a note of what is dropped.
        content_hash: of an image.
        check_content: read and hash every image.
    """
    folder.clean(reporter.warn)
    note, roots = folder.directory / ROOTS_NAME, roots_note(sources)
    noted = note.read_text("utf-8") if note.exists() else None
    check = check_content or noted not in {None, roots}
    readable: list[int] = []
    changed: list[int] = []
    if check:
        unfinished.drop(folder)
    located = folder.locate(manifest)
    for first, rows in folder.rows("sha256", "error"):
        unread = pc.starts_with(rows["error"], f"{UNREAD}:").fill_null(False).to_numpy()
        here = np.flatnonzero((first <= located) & (located < first + len(rows)))
        suspect = here if check else here[unread[located[here] - first]]
        for path, row in zip(manifest["path"].take(suspect).to_pylist(), located[suspect].tolist(), strict=True):
            sha256 = content_hash(path)
            if unread[row - first] and sha256 is not None:
                readable.append(row)
            elif sha256 != rows["sha256"][row - first].as_py():
                changed.append(row)
    if readable:
        reporter.note(f"{len(readable)} images that could not be read before can be now; they are made")
    if changed:
        reporter.note(f"{len(changed)} images have another content than when they were extracted; they are made again")
    if readable or changed:
        folder.forget(readable + changed)
        located = folder.locate(manifest)
    if touched := _touched(manifest.take(np.flatnonzero(located < 0)), folder, content_hash):
        folder.set_times(touched)
        located = folder.locate(manifest)
    if noted != roots:
        write_text(note, roots)
    return np.flatnonzero(located < 0)


def _touched(missing: pa.Table, folder: CorpusFolder, content_hash: ContentHash) -> dict[int, int]:
    """Return number of a folder's row -> new time (ns), for missing images of another time and the same content."""
    known: dict[tuple[str, int], dict[str, int]] = {}  # (path, size) -> sha256 -> first row
    for first, rows in folder.rows("path", "size_bytes", "sha256") if len(missing) else ():
        numbers = np.flatnonzero(pc.is_in(rows["path"], value_set=missing["path"]))
        for number, row in zip((first + numbers).tolist(), rows.take(numbers).to_pylist(), strict=True):
            if row["sha256"] is not None:
                known.setdefault((row["path"], row["size_bytes"]), {}).setdefault(row["sha256"], number)
    touched = {}
    for row in missing.select(IDENTITY).to_pylist() if known else ():
        by_hash = known.get((row["path"], row["size_bytes"]), {})
        sha256 = content_hash(row["path"]) if by_hash else None
        if sha256 is not None and sha256 in by_hash:
            touched[by_hash[sha256]] = row["mtime_ns"]
    return touched


def roots_note(sources: Sources) -> str:
    """Return the roots of a corpus, one a line, as ``roots.txt`` keeps them."""
    roots = (root for root in (sources.root, sources.reals) if root is not None)
    return "".join(f"{to_text(root if is_url(root) else os.path.normpath(root))}\n" for root in roots)


def _check_on_disk(images: pa.Table, sources: Sources, corpus: str) -> None:
    """Check that the files to be read are there with the size that the manifest says.

    Images in an archive that is damaged by now are passed over: reading them records the reason.

    Raises:
        DataError: one is not; the message names the command that refreshes the manifest.
    """
    if sources.is_remote:  # one request a file; a missing one is recorded when it is read
        return
    for state in at_once(partial(_misfit, sources), images.to_batches(_FILES_AT_ONCE)):
        if state is not None:
            raise DataError(
                f"the manifest of corpus {corpus!r} no longer fits the disk: {state}; "
                f"refresh it with `ltdpipe scan --corpus {corpus}`"
            )


def _misfit(sources: Sources, images: pa.RecordBatch) -> str | None:
    """Say where the first of some images lies that is not there with its size, and what is there; None for none."""
    for path, expected in zip(images["path"].to_pylist(), images["size_bytes"].to_pylist(), strict=True):
        with suppress(ArchiveError):
            size = sources.size(path)
            if size != expected:
                state = "is gone" if size is None else f"has {size} bytes instead of {expected}"
                return f"{sources.where(path)} {state}"
    return None


def _hash_content(sources: Sources, path: str) -> str | None:
    """Return the sha256 of an image's bytes, None where they cannot be read."""
    try:
        return hashlib.sha256(sources.read(path)).hexdigest()
    except Exception:  # remote stores raise nearly anything; the run that reads the image records the reason
        return None
