"""Showing a finished set of shards to the rest of the world: by hard link, or by copy across file systems.

One small file stands for the thousands that hold the features of a corpus: later stages depend on it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import atomic_path, explained, fsync, remove, sha256_of, write_text
from storage.errors import DataError
from storage.index import INDEX_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from storage.index import ShardRecord

# Errors of os.link that mean "not between these two": another file system, links not allowed, too many of them.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}

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
    foreign = sorted(entry.name for entry in target.iterdir() if not _OURS.fullmatch(entry.name))
    if foreign:
        raise DataError(f"{target} holds files of another origin ({', '.join(foreign[:3])}); choose an empty folder")
    remove(target / INDEX_NAME, *(old for old in target.iterdir() if old.name not in wanted))
    copied = sum(restore(source / name, target / name) for name in [*wanted, INDEX_NAME])
    with explained(target):
        fsync(target)
    if copied:
        log(f"copied {copied} files to {target}: hard links from {source} are not possible (another file system?)")


def restore(source: Path, target: Path) -> bool:
    """Make ``target`` the same file as ``source``, or a copy of it across file systems; return whether it was copied.

    Raises:
        ResourceError: the target cannot be written to.
    """
    if target.exists() and source.samefile(target):
        return False
    with explained(target):
        try:
            remove(target)
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            with atomic_path(target) as partial:
                shutil.copy2(source, partial)
            return True
    return False


def write_contents(features: Path, out: Path) -> None:
    """Write the hashes of every view's index and sidecars, which have those of the images and of the shards in them.

    Whoever depends on this file depends on every feature: it changes with any of them, and is as small to check as one
    file is.

    Args:
        features: directory of an extracted corpus, one folder a view.
        out: the file to write.
    """
    contents = {
        index.parent.name: {file.name: sha256_of(file) for file in sorted(index.parent.glob("*.parquet"))}
        for index in sorted(features.glob(f"*/{INDEX_NAME}"))
    }
    write_text(out, json.dumps(contents, indent=0) + "\n")
