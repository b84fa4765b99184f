"""Looking for damage in extracted features, and undoing it: from the store's good copies, or by clearing the way."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import remove
from storage.checked import shard_fault
from storage.corpus_folder import CorpusFolder, link
from storage.errors import DataError
from storage.index import INDEX_NAME, read_index, read_sidecar
from storage.locks import locked
from storage.shard_reader import Shard
from storage.store import project_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pyarrow as pa


def faults(directory: Path) -> dict[Path, str]:
    """Hash every shard of one view again, and check index and sidecars against them.

    Args:
        directory: a published view, or its folder in the store.

    Returns:
        Damaged or missing file -> what is wrong, in words that follow the path; empty when all is sound.
    """
    try:
        index = read_index(directory / INDEX_NAME)
    except DataError as error:
        folder = CorpusFolder(directory)
        folder.read("hash")
        return {directory / INDEX_NAME: f"is missing or damaged ({error})"} | folder.faults
    found = {}
    for record in index.shards:
        shard = directory / record.name
        sidecar = shard.with_suffix(".parquet")
        try:
            fault = shard_fault(shard, record, "hash")
            if fault is None:
                Shard.open(shard).check(index.spec, record.rows)
        except DataError as error:
            fault = f"does not fit the index ({error})"
        if fault is not None:
            found[shard] = fault
        try:
            _, stated, spec = read_sidecar(sidecar)
            if stated != record or spec.key != index.spec.key:
                found[sidecar] = "does not describe the shard that the index lists"
        except DataError as error:
            found[sidecar] = f"is missing or damaged ({error})"
    return found


def restore_from_store(
    found: Mapping[Path, str], home: Path | None, caches: Iterable[Path], notify: Callable[[str], None]
) -> dict[Path, str]:
    """Replace each damaged file by the store's copy of it where that is sound, and delete it everywhere where not.

    The next extraction makes what is deleted, and nothing else. A damaged file that is hard-linked into
    a cache is deleted there too: the cache would put it back when it sees the same content announced. The store's
    folder is locked meanwhile.

    Args:
        found: what :func:`faults` returned for a published view.
        home: the view's folder in the store (:func:`store_folder`); None where there is none.
        caches: folders whose links to damaged files are deleted.
        notify: called with one line when another process holds that folder and this one has to wait.

    Returns:
        The faults that remain.
    """
    remaining = {}
    with nullcontext() if home is None else locked(home, notify):
        for path, fault in found.items():
            _remove_links(path, caches)
            if home is not None and _is_sound(home / path.name, path.parent):
                link(home / path.name, path)
                continue
            remove(path)
            if home is not None and path.name != INDEX_NAME:  # an index is written anew anyway
                remove(home / path.name)
            remaining[path] = fault
    return remaining


def rebuild_index(view: Path, home: Path, manifest: pa.Table, notify: Callable[[str], None]) -> None:
    """Make a lost index again from the store's sidecars and the manifest, and publish it; nothing is extracted.

    Args:
        view: the published view.
        home: its folder in the store.
        manifest: of the corpus.
        notify: called with one line for each thing done.

    Raises:
        DataError: the store does not hold all images of the manifest.
    """
    folder = CorpusFolder(home)
    with folder.lock(notify):
        folder.clean(notify)
        folder.publish(view, folder.write_index(manifest).shards, notify)


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
    for sidecar in sorted(view.glob("shard-*.parquet")):
        for folder in own:
            with suppress(DataError):
                _, record, spec = read_sidecar(sidecar)
                if folder.parent.name == spec.key and read_sidecar(folder / sidecar.name)[1] == record:
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
        stated = read_sidecar(copy.with_suffix(".parquet"))[1]
        with suppress(DataError):
            records = {Path(record.name).stem: record for record in read_index(view / INDEX_NAME).shards}
            if records.get(copy.stem) != stated:
                return False
        return copy.suffix == ".parquet" or shard_fault(copy, stated, "hash") is None
    except DataError:
        return False


def _remove_links(damaged: Path, caches: Iterable[Path]) -> None:
    """Delete all links to a file below ``caches``."""
    if not damaged.exists() or damaged.stat().st_nlink == 1:
        return
    status = damaged.stat()
    for cache in caches:
        for folder, _, files in os.walk(cache):
            for name in files:
                path = Path(folder, name)
                if os.path.samestat(path.lstat(), status):
                    remove(path)
