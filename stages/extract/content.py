"""Whether images still are what was extracted, by their content and not by size and time alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from stages.extract.decode import UNREAD
from storage.atomic import write_text
from storage.names import to_text

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.reporter import Reporter
    from storage.sources import Sources
    from storage.store import Finished, ShardFolder

_ROOTS = "roots.txt"


def without_changed(
    folder: ShardFolder, finished: Finished, manifest: pa.Table, sources: Sources, reporter: Reporter
) -> Finished:
    """Forget the finished images whose content is no longer what was extracted, and return what is left.

    Every image of the manifest is read and hashed. A file that is gone counts as changed: the run then says so.
    """
    paths, hashes = manifest["path"], finished.rows["sha256"]
    changed = [
        place
        for row, place in enumerate(finished.locate(manifest))
        if place is not None and content_hash(sources, paths[row].as_py()) != hashes[place].as_py()
    ]
    if not changed:
        return finished
    reporter.note(f"{len(changed)} images have another content than when they were extracted; they are made again")
    folder.forget(finished, changed)
    return folder.clean(reporter.warn)


def without_unread(
    folder: ShardFolder, finished: Finished, manifest: pa.Table, sources: Sources, reporter: Reporter
) -> Finished:
    """Forget the images that could not be read when they were extracted and can be now, and return what is left.

    A permission or a network that failed once must not leave an image out for ever: nothing in the manifest tells
    that it is readable again.
    """
    unread = pc.starts_with(finished.rows["error"], f"{UNREAD}:").fill_null(False).to_numpy()
    if not unread.any():
        return finished
    paths = manifest["path"]
    again = [
        place
        for row, place in enumerate(finished.locate(manifest))
        if place is not None and unread[place] and content_hash(sources, paths[row].as_py()) is not None
    ]
    if not again:
        return finished
    reporter.note(f"{len(again)} images that could not be read before can be now; they are made")
    folder.forget(finished, again)
    return folder.clean(reporter.warn)


def is_from_elsewhere(folder: ShardFolder, sources: Sources) -> bool:
    """Tell whether what is finished was read below other roots: path, size and time then prove no equal content.

    Two folders called alike share their place in the store, and unpacked archives give equal sizes and times.
    """
    note = folder.directory / _ROOTS
    return note.exists() and note.read_text("utf-8") != _roots(sources)


def note_roots(folder: ShardFolder, sources: Sources) -> None:
    """Write down for :func:`is_from_elsewhere` where the images are read."""
    note = folder.directory / _ROOTS
    if not note.exists() or is_from_elsewhere(folder, sources):
        write_text(note, _roots(sources))


def _roots(sources: Sources) -> str:
    return "".join(f"{to_text(root)}\n" for root in (sources.root, sources.reals) if root is not None)


def content_hash(sources: Sources, path: str) -> str | None:
    """Return the sha256 of an image's bytes, None where they cannot be read."""
    try:
        return hashlib.sha256(sources.read(path)).hexdigest()
    except Exception:  # remote stores raise nearly anything; the run that reads the image records the reason
        return None
