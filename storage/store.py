"""The store: folders of features by key and corpus, how far each is, and what nobody needs any more."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import LOCK_NAME, lock_holder, try_lock
from storage.corpus_folder import CorpusFolder
from storage.index import INDEX_NAME, sidecar_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from storage.spec import FeatureSpec

TRAINING = "training"  # the store's folder of unfinished trainings
_KEY = re.compile(r"[0-9a-f]{32}")
# The rate comes from so many last shards; a longer time between two of them is a pause, not work.
_RATE_SHARDS, _PAUSE_S = 10, 600.0
# A training at work writes its state anew every few epochs; one that was not written for so long was given up.
_ABANDONED_S = 7 * 24 * 3600.0


def store_root() -> Path:
    """Return where shards are kept: LTDPIPE_STORE, else .ltdpipe/store under DVC_ROOT or here.

    DVC sets DVC_ROOT to the main repository also inside the temporary copies of ``dvc exp run``, so that experiments
    share the features.
    """
    override = os.environ.get("LTDPIPE_STORE")
    return Path(override) if override else Path(os.environ.get("DVC_ROOT", "."), ".ltdpipe", "store")


def project_root() -> Path:
    """Return the absolute folder of the project: DVC_ROOT, else the current folder."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def is_own_store(store: Path, project: Path) -> bool:
    """Return whether a store lies inside a project and is used by it alone unless others name it."""
    return store.resolve() == project.resolve() / ".ltdpipe" / "store"


def training_folder() -> Path:
    """Where unfinished trainings of this project are kept; other projects of a shared store have other folders."""
    root = store_root() / TRAINING
    return root if is_own_store(store_root(), project_root()) else root / _short_hash(str(project_root()))


def finished_folder(kind: str) -> Path:
    """Where finished ``heads`` and ``scores`` are kept, each under the name of its recipe; projects may share them."""
    return store_root() / kind


def corpus_folder(store: Path, corpus: str, spec: FeatureSpec, *, project: Path | None, roots: str) -> CorpusFolder:
    """Return the folder of a corpus in a store.

    In a project's own store it is ``<key>/<corpus>``, so that a project may be moved. Elsewhere, and for a folder
    extracted by hand (no ``project``), a hash of the project's path or of the image ``roots``, one a line, follows.
    """
    owner = roots.replace("\n", " ").strip() if project is None else str(project)
    own = project is not None and is_own_store(store, project)
    name = corpus if own else f"{corpus}-{_short_hash(roots if project is None else owner)}"
    return CorpusFolder((store / spec.key / name).absolute(), spec, corpus=corpus, owner=owner)


def stored_corpora(store: Path, corpus: str | None = None, project: Path | None = None) -> list[CorpusFolder]:
    """Read the folders of a store, in the order of keys and names; nothing is changed, locked or hashed.

    Args:
        store: the store's folder; it may be absent.
        corpus: only this corpus.
        project: only this project's, and those whose owner was not written down.
    """
    keys = sorted(path for path in store.iterdir() if _KEY.fullmatch(path.name)) if store.is_dir() else []
    found = []
    for folder in (CorpusFolder(path) for key in keys for path in sorted(key.iterdir()) if path.is_dir()):
        if corpus in {None, folder.corpus} and (project is None or folder.owner in {None, str(project)}):
            folder.read("size")
            found.append(folder)
    return found


def usage(folder: CorpusFolder) -> tuple[int, int]:
    """Return (bytes of all its files, bytes of those hard-linked from elsewhere: deleting them here frees nothing)."""
    statuses = [status for path in folder.directory.iterdir() if (status := _status(path))]
    files = [status for status in statuses if stat.S_ISREG(status.st_mode)]
    return sum(each.st_size for each in files), sum(each.st_size for each in files if each.st_nlink > 1)


def images_per_second(folder: CorpusFolder) -> float | None:
    """Return the rate of the last shards, from when each was finished; None for less than two in one go."""
    sidecars = {name: _status(sidecar_of(folder.directory / name)) for name in folder.shards}
    finished = sorted((status.st_mtime, name) for name, status in sidecars.items() if status)[-_RATE_SHARDS:]
    pauses = [at for at in range(1, len(finished)) if finished[at][0] - finished[at - 1][0] > _PAUSE_S]
    finished = finished[pauses[-1] :] if pauses else finished
    seconds = finished[-1][0] - finished[0][0] if finished else 0
    images = sum(folder.images[name] for _, name in finished[1:])
    return images / seconds if seconds > 0 else None


def reason_to_keep(
    folder: CorpusFolder, *, published: Collection[str], corpora: Collection[str], owner: str, own_store: bool
) -> str | None:
    """Return why a folder of the store may not be deleted, in words; None when its owner does not need it.

    Args:
        folder: of the store.
        published: keys of the features that the project shows.
        corpora: names of the project's corpora.
        owner: whose folders may be deleted: a project's path, or the image roots of a folder extracted by hand.
        own_store: whether folders without a known owner are this project's.
    """
    process = lock_holder(folder.directory)
    if process is not None:
        return f"process {process} extracts into it"
    if folder.owner not in {owner, None}:
        return f"belongs to {folder.owner}"
    if folder.owner is None and not own_store:
        return "nothing says whose it is; delete the folder by hand"
    if usage(folder)[1]:
        return "linked from published features or the DVC cache"
    if folder.directory.parent.name in published:
        return "published as a copy"
    unfinished = folder.corpus in corpora and not (folder.directory / INDEX_NAME).exists()
    return "unfinished work of a corpus in params.yaml" if unfinished else None


def delete(folder: CorpusFolder) -> bool:
    """Delete a folder of the store, and its key's folder when nothing else is in it.

    Returns:
        False where a process has begun to extract into it; then nothing is deleted.
    """
    path = folder.directory / LOCK_NAME
    with path.open("a") as lock:  # not truncated: it holds the number of its holder
        if not try_lock(lock, path):
            return False
        shutil.rmtree(folder.directory)
    with suppress(OSError):  # not empty: another corpus, perhaps since this moment
        folder.directory.parent.rmdir()
    return True


def abandoned(folder: Path) -> list[Path]:
    """Return the files of a folder, whole or partial, that were not written for a week and are linked nowhere else.

    In the store's folder of trainings these are states that nobody resumes, in those of finished heads and scores such
    as no study and no cache has.
    """
    oldest = time.time() - _ABANDONED_S
    files = [(path, path.stat()) for path in folder.glob("*") if path.is_file()]
    return sorted(path for path, status in files if status.st_mtime < oldest and status.st_nlink == 1)


def _status(path: Path) -> os.stat_result | None:
    """Look at a file; None where it is gone: who extracts meanwhile renames partial files."""
    with suppress(FileNotFoundError):
        return path.stat()
    return None


def _short_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
