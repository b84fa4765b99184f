"""What the store holds: finished work per feature key and corpus, how fast it grows, and what nobody needs any more."""

from __future__ import annotations

import fcntl
import re
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.errors import ResourceError
from storage.index import INDEX_NAME
from storage.store import LOCK_NAME, Finished, read_folder, read_owner, size_fault, try_lock

if TYPE_CHECKING:
    import os
    from collections.abc import Collection
    from pathlib import Path

    from storage.spec import FeatureSpec

_KEY = re.compile(r"[0-9a-f]{32}")
# The rate comes from so many last shards; a longer time between two of them is a pause, not work.
_RATE_SHARDS, _PAUSE_S = 10, 600.0
# A training at work writes its state anew every few epochs; one that was not written for so long was given up.
_ABANDONED_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class StoredCorpus:
    """One corpus in one view in the store.

    Attributes:
        directory: its folder in the store.
        corpus: its name.
        owner: the project, or the image roots of a folder extracted by hand; None where it was not written down.
        finished: rows of all sound sidecars, and their shards; a shard's size is all that was looked at.
        size_bytes: all its files.
        linked_bytes: those of its files that are hard-linked from elsewhere: deleting them here frees nothing.
        complete: whether its index was written.
    """

    directory: Path
    corpus: str
    owner: str | None
    finished: Finished
    size_bytes: int
    linked_bytes: int
    complete: bool

    @property
    def key(self) -> str:
        """The feature key."""
        return self.directory.parent.name

    @property
    def spec(self) -> FeatureSpec | None:
        """Its settings; None where no sidecar can be read."""
        return next(iter(self.finished.specs.values()), None)

    @property
    def damaged(self) -> list[str]:
        """Names of sidecars that cannot be read, and of shards that are missing or of another size."""
        return [fault.path.name for fault in self.finished.faults]

    @property
    def writer(self) -> str | None:
        """Number of the process that extracts into it now, None if there is none."""
        path = self.directory / LOCK_NAME
        if not path.exists():
            return None
        with path.open() as file, suppress(ResourceError):  # without locks nobody can extract into it
            return None if try_lock(file, path, fcntl.LOCK_SH) else file.read().strip()
        return None

    def images_per_second(self) -> float | None:
        """Return the rate of the last shards, from when each was finished; None for less than two in one go."""
        finished = sorted(
            (status.st_mtime, record.name)
            for record in self.finished.shards.values()
            if (status := _status((self.directory / record.name).with_suffix(".parquet")))
        )[-_RATE_SHARDS:]
        pauses = [at for at in range(1, len(finished)) if finished[at][0] - finished[at - 1][0] > _PAUSE_S]
        finished = finished[pauses[-1] :] if pauses else finished
        seconds = finished[-1][0] - finished[0][0] if finished else 0
        counts = {each["values"]: each["counts"] for each in self.finished.rows["shard"].value_counts().to_pylist()}
        images = sum(counts.get(name, 0) for _, name in finished[1:])
        return images / seconds if seconds > 0 else None


def stored_corpora(store: Path, corpus: str | None = None, owner: Path | None = None) -> list[StoredCorpus]:
    """Return what the store holds, by key and corpus; nothing is changed, locked or hashed.

    Args:
        store: the store's folder; it may be absent.
        corpus: only this corpus.
        owner: only this project's, and those whose owner was not written down.
    """
    keys = sorted(path for path in store.iterdir() if _KEY.fullmatch(path.name)) if store.is_dir() else []
    folders = (path for key in keys for path in sorted(key.iterdir()) if path.is_dir())
    wanted = ((path, *read_owner(path)) for path in folders)
    return [
        _look(path, name, whose)
        for path, name, whose in wanted
        if corpus in {None, name} and (owner is None or whose in {None, str(owner)})
    ]


def disposable(
    entry: StoredCorpus, *, published: Collection[str], corpora: Collection[str], owner: str, own_store: bool
) -> str | None:
    """Return why ``entry`` may not be deleted, in words; None when its owner does not need it.

    Args:
        entry: of the store.
        published: keys of the features that the project shows.
        corpora: names of the project's corpora.
        owner: whose entries may be deleted: a project's path, or the image roots of a folder extracted by hand.
        own_store: whether entries without a known owner are this project's.
    """
    if entry.writer is not None:
        return f"process {entry.writer} extracts into it"
    if entry.owner not in {owner, None}:
        return f"belongs to {entry.owner}"
    if entry.owner is None and not own_store:
        return "made by an earlier version, which did not write down whose it is; delete the folder by hand"
    if entry.linked_bytes:
        return "linked from published features or the DVC cache"
    if entry.key in published:
        return "published as a copy"
    unfinished = not entry.complete and entry.corpus in corpora
    return "unfinished work of a corpus in params.yaml" if unfinished else None


def delete(entry: StoredCorpus) -> bool:
    """Delete an entry of the store, and its key's folder when nothing else is in it.

    Returns:
        False where a process has begun to extract into it; then nothing is deleted.
    """
    with (entry.directory / LOCK_NAME).open("a") as lock:  # not truncated: it holds the number of its holder
        if not try_lock(lock, entry.directory / LOCK_NAME):
            return False
        shutil.rmtree(entry.directory)
    with suppress(OSError):  # not empty: another corpus, perhaps since this moment
        entry.directory.parent.rmdir()
    return True


def abandoned_trainings(folder: Path) -> list[Path]:
    """Return the states of unfinished trainings, and what killed ones left, that were not written for a week.

    Args:
        folder: of the project's unfinished trainings.
    """
    oldest = time.time() - _ABANDONED_S
    states = (path for path in folder.glob("*") if path.is_file())
    return sorted(path for path in states if path.stat().st_mtime < oldest)


def _look(directory: Path, corpus: str, owner: str | None) -> StoredCorpus:
    files = [status for path in directory.iterdir() if (status := _status(path)) and stat.S_ISREG(status.st_mode)]
    return StoredCorpus(
        directory=directory,
        corpus=corpus,
        owner=owner,
        finished=read_folder(directory, size_fault),
        size_bytes=sum(status.st_size for status in files),
        linked_bytes=sum(status.st_size for status in files if status.st_nlink > 1),
        complete=(directory / INDEX_NAME).exists(),
    )


def _status(path: Path) -> os.stat_result | None:
    """Look at a file; None where it is gone: one who extracts meanwhile renames its partial files."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
