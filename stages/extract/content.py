"""Whether images still are what was extracted, by their content and not by size and time alone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from stages.reporter import Reporter
    from storage.sources import Sources
    from storage.store import Finished, ShardFolder


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
        if place is not None and _sha256(sources, paths[row].as_py()) != hashes[place].as_py()
    ]
    if not changed:
        return finished
    reporter.note(f"{len(changed)} images have another content than when they were extracted; they are made again")
    folder.forget(finished, changed)
    return folder.clean(reporter.warn)


def _sha256(sources: Sources, path: str) -> str | None:
    return None if sources.size(path) is None else hashlib.sha256(sources.read(path)).hexdigest()
