"""Looking for damage in extracted features, and undoing it: from the store's good copies, or by clearing the way."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import remove
from storage.errors import DataError
from storage.index import INDEX_NAME, Index, read_index, read_sidecar
from storage.publish import publish, restore
from storage.shard_reader import Shard
from storage.store import Fault, ShardFolder, locked, project_root, read_folder, read_owner, shard_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

    from storage.index import ShardRecord


def faults(directory: Path) -> list[Fault]:
    """Hash every shard of one view again, and check index and sidecars against them.

    Args:
        directory: a published view, or its folder in the store.

    Returns:
        At most one fault a file; none when all is sound.
    """
    try:
        index = read_index(directory / INDEX_NAME)
    except DataError as error:
        lost = Fault(directory / INDEX_NAME, f"is missing or damaged ({error})")
        return [lost, *read_folder(directory, partial(shard_fault, rehash=True)).faults]
    found = [_shard_fault(directory, record, index) for record in index.shards]
    found += [_sidecar_fault(directory, record, index) for record in index.shards]
    return [fault for fault in found if fault is not None]


def restore_from_store(
    found: Iterable[Fault], store: Path, caches: Iterable[Path], tell: Callable[[str], None]
) -> list[Fault]:
    """Replace each damaged file by the store's copy of it where that is sound, and delete it everywhere where not.

    What is deleted is made again by the next extraction, and nothing else is. A damaged file that is hard-linked into
    a cache is deleted there too: the cache would put it back when it sees the same content announced. The store's
    folder is locked meanwhile.

    Args:
        found: faults of a published view.
        store: the folder of the same key and corpus in the store; it may be absent.
        caches: folders whose links to damaged files are deleted.
        tell: gets one line when another process extracts into that folder and this one has to wait.

    Returns:
        The faults that remain.
    """
    remaining = []
    with locked(store, tell) if store.is_dir() else nullcontext():
        for fault in found:
            copy = store / fault.path.name
            _remove_links(fault.path, caches)
            if _is_sound(copy, fault.path.parent):
                restore(copy, fault.path)
            else:
                remove(fault.path)
                if copy.name != INDEX_NAME:  # the store's may be another corpus's; it is written anew anyway
                    remove(copy)
                remaining.append(fault)
    return remaining


def rebuild_index(view: Path, store: Path, manifest: pa.Table, corpus: str, tell: Callable[[str], None]) -> None:
    """Make a lost index again from the store's sidecars and the manifest, and publish it; nothing is extracted.

    Args:
        view: the published view.
        store: its folder in the store.
        manifest: of the corpus.
        corpus: its name.
        tell: gets one line for each thing done.

    Raises:
        DataError: the store does not hold all images of the manifest.
    """
    sidecar = next(store.glob("shard-*.parquet"), None)
    if sidecar is None:
        raise DataError(f"{store} holds no shard; run `ltdpipe extract --corpus {corpus}`")
    folder = ShardFolder(store, read_sidecar(sidecar)[2])
    with folder.lock(tell):
        finished = folder.clean(tell)
        index = folder.write_index(manifest, finished, finished.locate(manifest), corpus)
        publish(store, view, index.shards, tell)


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
    return _folder_by_sidecars(view, [folder for folder in folders if not _is_foreign(folder)])


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder of the store belongs to another project: its owner is one, and not this one."""
    owner = read_owner(folder)[1]
    return owner is not None and owner != str(project_root()) and Path(owner, "params.yaml").exists()


def _is_sound(copy: Path, view: Path) -> bool:
    """Tell whether a file of the store is what ``view`` has lost.

    The store's folder may hold shards of several folders of one name, and its index is that of the last one.
    """
    sidecar = copy.with_suffix(".parquet")
    try:
        if copy.name == INDEX_NAME:
            listed = {Path(record.name).stem for record in read_index(copy).shards}
            return all(path.stem in listed for path in view.glob("shard-*"))
        try:
            records = {Path(record.name).stem: record for record in read_index(view / INDEX_NAME).shards}
        except DataError:
            records = {}
        record = records[copy.stem] if copy.stem in records else read_sidecar(sidecar)[1]
        if copy == sidecar:
            return read_sidecar(copy)[1] == record
        return shard_fault(copy, record, rehash=True) is None
    except DataError:
        return False


def _folder_by_sidecars(view: Path, folders: Iterable[Path]) -> Path | None:
    for sidecar in sorted(view.glob("shard-*.parquet")):
        for folder in folders:
            with suppress(DataError):
                _, record, spec = read_sidecar(sidecar)
                if folder.parent.name == spec.key and read_sidecar(folder / sidecar.name)[1] == record:
                    return folder
    return None


def _shard_fault(directory: Path, record: ShardRecord, index: Index) -> Fault | None:
    path = directory / record.name
    what = shard_fault(path, record, rehash=True)
    if what is None:
        try:
            Shard.open(path).check(index.spec, record.rows)
        except DataError as error:
            what = f"does not fit the index ({error})"
    return None if what is None else Fault(path, what)


def _sidecar_fault(directory: Path, record: ShardRecord, index: Index) -> Fault | None:
    path = (directory / record.name).with_suffix(".parquet")
    try:
        _, stated, spec = read_sidecar(path)
    except DataError as error:
        return Fault(path, f"is missing or damaged ({error})")
    if stated != record or spec.key != index.spec.key:
        return Fault(path, "does not describe the shard that the index lists")
    return None


def _remove_links(damaged: Path, caches: Iterable[Path]) -> None:
    """Delete all links to a file below ``caches``."""
    if not damaged.exists() or damaged.stat().st_nlink == 1:
        return
    status = damaged.stat()
    for cache in caches:
        for folder, _, files in os.walk(cache):
            for name in files:
                link = Path(folder, name)
                if os.path.samestat(link.lstat(), status):
                    remove(link)
