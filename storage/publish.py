"""Showing a finished set of shards to the rest of the world: by hard link, or by copy across file systems.

One small file stands for the thousands that hold the features of a corpus: later stages depend on it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import atomic_path, explained, fsync, remove, write_text
from storage.errors import DataError
from storage.index import INDEX_NAME, fingerprint, read_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.index import ShardRecord

_OURS = re.compile(rf"shard-\d+\.(h5|parquet)|{re.escape(INDEX_NAME)}|.*\.partial|\.lock")


def publish(source: Path, target: Path, shards: Sequence[ShardRecord], log: Callable[[str], None]) -> None:
    """Make ``target`` show the index of ``source`` and its shards with their sidecars.

    The old index goes first and the new one comes last: whatever stops this half-way, a target with an index is
    complete, and one without is refused.

    Args:
        source: folder of the store.
        target: folder to fill; what it showed before and is no longer wanted is removed.
        shards: those that the index uses.
        log: told in one line when files had to be copied.

    Raises:
        DataError: the target holds files that are not ours.
        ResourceError: the target cannot be written to.
    """
    wanted = [name for shard in shards for name in (shard.name, Path(shard.name).with_suffix(".parquet").name)]
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
    refuse_foreign(target)
    remove(target / INDEX_NAME, *(old for old in target.iterdir() if old.name not in wanted))
    copied = sum(restore(source / name, target / name) for name in [*wanted, INDEX_NAME])
    with explained(target):
        fsync(target)
    if copied:
        log(f"copied {copied} files to {target}: hard links from {source} are not possible (another file system?)")


def refuse_foreign(target: Path) -> None:
    """Refuse a folder to publish to that holds files of others; one that is not there holds none.

    Raises:
        DataError: it does.
        ResourceError: it cannot be read, or is no folder.
    """
    with explained(target):
        entries = list(target.iterdir()) if target.exists() else []
    foreign = sorted(entry.name for entry in entries if not _OURS.fullmatch(entry.name))
    if foreign:
        raise DataError(f"{target} holds files of another origin ({', '.join(foreign[:3])}); choose an empty folder")


def restore(source: Path, target: Path) -> bool:
    """Make ``target`` the same file as ``source``, or a copy of it across file systems; return whether it was copied.

    Raises:
        ResourceError: the target cannot be written to.
    """
    if target.exists() and source.samefile(target):
        return False
    with explained(target):
        remove(target)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one that refuses links, each in its own words: a copy says the rest
            with atomic_path(target) as partial:
                shutil.copy2(source, partial)
            return True
    return False


def write_contents(features: Path, out: Path) -> None:
    """Write a fingerprint of every view: its feature key, and a hash over what later stages read of its images.

    Whoever depends on this file depends on every feature: it changes with any image, label, set or shard, and is as
    small to check as one file is. File sizes and times are left out, so that a touched image changes nothing.

    Args:
        features: directory of an extracted corpus, one folder a view.
        out: the file to write.
    """
    contents = {
        index.parent.name: {"key": (read := read_index(index)).spec.key, "rows": fingerprint(read)}
        for index in sorted(features.glob(f"*/{INDEX_NAME}"))
    }
    write_text(out, json.dumps(contents, indent=0) + "\n")
