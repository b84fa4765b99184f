"""Which images still are what was extracted: by path, size and time, and where these prove nothing by their content."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from stages.extract.decode import UNREAD
from storage.archives import ArchiveError, is_url
from storage.atomic import write_text
from storage.errors import DataError
from storage.names import to_text
from storage.store import ROOTS_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

    from stages.reporter import Reporter
    from storage.sources import Sources
    from storage.store import Finished, ShardFolder

    # path -> sha256 of an image's bytes, None where they cannot be read
    ContentHash = Callable[[str], str | None]


def still_valid(
    folder: ShardFolder,
    manifest: pa.Table,
    sources: Sources,
    reporter: Reporter,
    *,
    content_hash: ContentHash,
    check_content: bool,
) -> Finished:
    """Return what is finished in a folder, without what has to be made again. The caller holds its lock.

    Forgotten are images that could not be read when they were extracted and can be now: a permission or a network that
    failed once must not leave an image out for ever. And, where contents are compared, images whose content is no
    longer what was extracted; a file that is gone counts as changed, the run then says so. Contents are also compared
    where the finished ones were read below other roots, since unpacked archives give equal paths, sizes and times.

    A file that was only touched or copied keeps its features: where path and size agree, the hash decides, and its
    new time is written down, so that the next run need not read it again.

    Args:
        folder: of one view.
        manifest: the images wanted.
        sources: where they lie.
        reporter: told what is made again.
        content_hash: of an image; one for all views of a run, so that each image is read once.
        check_content: read and hash every image.
    """
    finished = folder.clean(reporter.warn)
    note = folder.directory / ROOTS_NAME
    roots = roots_note(sources)
    noted = note.read_text("utf-8") if note.exists() else None
    check = check_content or noted not in {None, roots}
    unread = pc.starts_with(finished.rows["error"], f"{UNREAD}:").fill_null(False).to_numpy()
    readable, changed = [], []
    for row, place in enumerate(finished.locate(manifest) if check or unread.any() else ()):
        if place is None or not (check or unread[place]):
            continue
        sha256 = content_hash(manifest["path"][row].as_py())
        if unread[place] and sha256 is not None:
            readable.append(place)
        elif sha256 != finished.rows["sha256"][place].as_py():
            changed.append(place)
    if readable:
        reporter.note(f"{len(readable)} images that could not be read before can be now; they are made")
    if changed:
        reporter.note(f"{len(changed)} images have another content than when they were extracted; they are made again")
    if readable or changed:
        folder.forget(finished, readable + changed)
        finished = folder.clean(reporter.warn)
    if touched := _touched(manifest, finished, content_hash):
        folder.set_times(finished, touched)
        finished = folder.clean(reporter.warn)
    if noted != roots:
        write_text(note, roots)
    return finished


def roots_note(sources: Sources) -> str:
    """Return the roots of a corpus, one a line, as ``roots.txt`` keeps them."""
    roots = (root for root in (sources.root, sources.reals) if root is not None)
    return "".join(f"{to_text(root if is_url(root) else os.path.normpath(root))}\n" for root in roots)


def _touched(manifest: pa.Table, finished: Finished, content_hash: ContentHash) -> dict[int, int]:
    """Return finished row -> its image's new time (ns), for the images of another time and the same content."""
    located = finished.locate(manifest)
    if None not in located or not len(finished.rows):
        return {}
    twins: dict[tuple[str, int], list[tuple[int, str | None]]] = {}
    columns = (finished.rows[name].to_pylist() for name in ("path", "size_bytes", "sha256"))
    for position, (path, size, sha256) in enumerate(zip(*columns, strict=True)):
        twins.setdefault((path, size), []).append((position, sha256))
    touched = {}
    for row in (row for row, position in enumerate(located) if position is None):
        identity = manifest["path"][row].as_py(), manifest["size_bytes"][row].as_py()
        sha256 = content_hash(identity[0]) if identity in twins else None
        same = next((twin for twin, known in twins.get(identity, ()) if sha256 is not None and known == sha256), None)
        if same is not None:
            touched[same] = manifest["mtime_ns"][row].as_py()
    return touched


def check_on_disk(rows: Iterable[dict[str, Any]], sources: Sources, corpus: str) -> None:
    """Check that the files to be read are there with the size that the manifest says.

    Images in an archive that is damaged by now are passed over: reading them records the reason.

    Raises:
        DataError: one is not; the message names the command that refreshes the manifest.
    """
    if sources.is_remote:  # one request a file; a missing one is recorded when it is read
        return
    for row in rows:
        try:
            size = sources.size(row["path"])
        except ArchiveError:
            continue
        if size != row["size_bytes"]:
            state = "is gone" if size is None else f"has {size} bytes instead of {row['size_bytes']}"
            raise DataError(
                f"the manifest of corpus {corpus!r} no longer fits the disk: {sources.where(row['path'])} {state}; "
                f"refresh it with `ltdpipe scan --corpus {corpus}`"
            )


def hash_content(sources: Sources, path: str) -> str | None:
    """Return the sha256 of an image's bytes, None where they cannot be read."""
    try:
        return hashlib.sha256(sources.read(path)).hexdigest()
    except Exception:  # remote stores raise nearly anything; the run that reads the image records the reason
        return None
