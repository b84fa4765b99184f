"""Published features: hard links into the store, made when a corpus is complete, checked and restored from it later."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import LOCK_NAME, explained, fsync, link, locked, remove
from storage.corpus_folder import CorpusFolder
from storage.errors import DataError
from storage.index import INDEX_NAME, SIDECAR, read_index, read_sidecar, shard_fault, sidecar_of, sidecars
from storage.shard import Shard
from storage.store import project_root
from storage.threads import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pyarrow as pa

    from storage.index import ShardRecord
    from storage.spec import FeatureSpec

_OURS = re.compile(rf"shard-\d+\.(h5|rows|parquet)|{re.escape(INDEX_NAME)}|.*\.partial|{re.escape(LOCK_NAME)}")


def views_in(folder: Path) -> list[Path]:
    """Return the views in a folder of features; the folder itself if it is one.

    Raises:
        DataError: there is none.
    """
    if any(folder.glob("shard-*")):
        return [folder]
    views = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not views:
        raise DataError(f"{folder} holds no extracted features; `ltdpipe extract` makes or completes them")
    return views


def publish(folder: CorpusFolder, target: Path, shards: Sequence[ShardRecord], notify: Callable[[str], None]) -> None:
    """Make ``target`` show a folder's index and the shards that it uses; what it showed before is removed.

    The old index goes first and the new one comes last: whatever stops this half-way, a target with an index is
    complete, and one without is refused. ``notify`` is called with one line when files had to be copied.

    Raises:
        DataError: the target holds files that are not ours.
        ResourceError: the target cannot be written to.
    """
    files: dict[str, Path] = {}
    for shard in shards:
        path = folder.directory / shard.name
        files |= {path.name: path, path.with_suffix(SIDECAR).name: sidecar_of(path)}
    files[INDEX_NAME] = folder.directory / INDEX_NAME
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
    refuse_foreign(target)
    remove(target / INDEX_NAME, *(old for old in target.iterdir() if old.name not in files))
    copied = sum(link(path, target / name) for name, path in files.items())
    with explained(target):
        fsync(target)
    if copied:
        notify(f"copied {copied} files to {target}: no hard links from {folder.directory} (another file system?)")


def is_published(path: Path) -> bool:
    """Tell by its name whether a file is one that :func:`publish` made."""
    return _OURS.fullmatch(path.name) is not None


def refuse_foreign(target: Path, is_ours: Callable[[Path], bool] = is_published) -> None:
    """Refuse a folder to write to that holds files of others; one that does not exist holds none.

    Raises:
        DataError: it does.
        ResourceError: it cannot be read, or is no folder.
    """
    with explained(target):
        paths = sorted(target.iterdir()) if target.exists() else []
    foreign = [path.name for path in paths if not is_ours(path)]
    if foreign:
        raise DataError(f"{target} holds files of another origin ({', '.join(foreign[:3])}); choose an empty folder")


def faults(view: Path) -> dict[Path, str]:
    """Hash every shard of one view (published, or in the store) again, and check index and sidecars against them.

    Returns:
        Damaged or missing file -> what is wrong, in words that follow the path; empty when all is sound.
    """
    try:
        index = read_index(view / INDEX_NAME)
    except DataError as error:
        folder = CorpusFolder(view)
        folder.read("hash")
        return {view / INDEX_NAME: f"is missing or damaged ({error})"} | folder.faults
    found: dict[Path, str] = {}
    for damaged in at_once(partial(_faults, view, index.spec), index.shards):
        found |= damaged
    return found


def _faults(view: Path, spec: FeatureSpec, record: ShardRecord) -> dict[Path, str]:
    """Check one shard and its sidecar against the index."""
    found = {}
    shard = view / record.name
    sidecar = sidecar_of(shard)
    try:
        fault = shard_fault(shard, record, "hash")
        if fault is None:
            Shard.open(shard).check(spec, record.rows)
    except DataError as error:
        fault = f"does not fit the index ({error})"
    if fault is not None:
        found[shard] = fault
    try:
        _, stated, its = read_sidecar(sidecar)
        if stated != record or its.key != spec.key:
            found[sidecar] = "does not describe the shard that the index lists"
    except DataError as error:
        found[sidecar] = f"is missing or damaged ({error})"
    return found


def repair(
    found: Mapping[Path, str],
    home: Path | None,
    caches: Iterable[Path],
    notify: Callable[[str], None],
    manifest: pa.Table | None = None,
) -> dict[Path, str]:
    """Replace each damaged file by the store's copy of it where that is sound, and delete it everywhere where not.

    A damaged file that is hard-linked into a cache is deleted there too: the cache would put it back when it sees the
    same content announced. An index that is all that is lost is put together from the store's sidecars. The store's
    folder is locked meanwhile.

    Args:
        found: what :func:`faults` returned for one published view.
        home: the view's folder in the store (:func:`store_folder`, asked before); None where there is none.
        caches: folders whose links to damaged files are deleted.
        notify: called with one line for each file, and when another process holds that folder and this one has to wait.
        manifest: of the corpus, where it is known.

    Returns:
        The faults that remain: the next extraction makes these files, and nothing else.
    """
    remaining = {}
    with nullcontext() if home is None else locked(home, notify):
        for path, fault in found.items():
            _remove_links(path, caches)
            copy = None if home is None else home / path.name
            if copy is not None and path.suffix == SIDECAR:
                copy = sidecar_of(copy)
            if copy is not None and _is_sound(copy, path.parent):
                link(copy, path)
                notify(f"  {path}: restored")
                continue
            remove(path)
            if copy is not None and path.name != INDEX_NAME:  # an index is written anew anyway
                remove(copy)
            notify(f"  {path}: no sound copy, removed")
            remaining[path] = fault
    lost = [path for path in remaining if path.name == INDEX_NAME]
    if home is not None and manifest is not None and lost == list(remaining) != []:
        with suppress(DataError):  # the store lacks images of the manifest: these have to be extracted
            folder = CorpusFolder(home)
            with folder.lock(notify):
                folder.clean(notify)
                publish(folder, lost[0].parent, folder.write_index(manifest), notify)
            notify(f"  {lost[0]}: put together from the sidecars")
            return {}
    return remaining


def store_folder(view: Path, store: Path) -> Path | None:
    """Return the folder of the store that a published view came from, None where it is unknown or gone.

    It is the one with a file hard-linked to the view; else, after a copy, one with a sidecar of the same shard. A
    folder that is another project's and not linked is passed over.
    """
    folders = [path for path in sorted(store.glob("*/*")) if path.is_dir()]
    for file in sorted(view.glob("shard-*")):
        for folder in folders:
            if (folder / file.name).exists() and (folder / file.name).samefile(file):
                return folder
    own = [folder for folder in folders if not _is_foreign(folder)]
    for sidecar in sidecars(view):
        for folder in own:
            with suppress(DataError):
                _, record, spec = read_sidecar(sidecar)
                if folder.parent.name == spec.key and read_sidecar(sidecar_of(folder / sidecar.name))[1] == record:
                    return folder
    return None


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder of the store belongs to another project: its owner is one, and not this one."""
    owner = CorpusFolder(folder).owner
    return owner is not None and owner != str(project_root()) and Path(owner, "params.yaml").exists()


def _is_sound(copy: Path, view: Path) -> bool:
    """Return whether a file of the store is what ``view`` has lost: the store may be ahead of what is published."""
    try:
        if copy.name == INDEX_NAME:
            listed = {Path(record.name).stem for record in read_index(copy).shards}
            return all(path.stem in listed for path in view.glob("shard-*"))
        stated = read_sidecar(sidecar_of(copy))[1]
        with suppress(DataError):
            records = {Path(record.name).stem: record for record in read_index(view / INDEX_NAME).shards}
            if records.get(copy.stem) != stated:
                return False
        return copy.suffix != ".h5" or shard_fault(copy, stated, "hash") is None
    except DataError:
        return False


def _remove_links(damaged: Path, caches: Iterable[Path]) -> None:
    """Delete all links to a file below ``caches``."""
    if not damaged.exists() or damaged.stat().st_nlink == 1:
        return
    status = damaged.stat()
    for path in (path for cache in caches for path in cache.rglob("*")):
        if os.path.samestat(path.lstat(), status):
            remove(path)
