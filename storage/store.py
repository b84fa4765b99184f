"""The growing set of finished shards of one corpus in one view.

A folder belongs to one feature key. Done means: the sidecar is there and the shard has the size that it states.
Whatever else lies there (a partial file, a shard without sidecar, a damaged shard) is removed by the next writer and
made again. Writers hold the folder's lock. Two projects, or two folders extracted by hand, never share a folder.

A shard that was hashed once and found sound is remembered by inode, size and modification time in the user's cache
folder. What was not touched since needs no second look; what was copied, restored, overwritten or replaced is hashed
again. The device is left out: its number differs between the nodes that mount one disk. ``ltdpipe verify`` hashes
whatever is remembered, since a disk may lose bits without any of the three changing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.atomic import explained, remove, remove_partials, sha256_of, write_text
from storage.errors import DataError, ResourceError
from storage.index import (
    INDEX_NAME,
    INDEX_SCHEMA,
    SIDECAR_SCHEMA,
    Index,
    ShardRecord,
    read_sidecar,
    write_index,
    write_sidecar,
)
from storage.manifest import MANIFEST_SCHEMA
from storage.shard import write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from storage.spec import FeatureSpec

LOCK_NAME = ".lock"
OWNER_NAME = "owner.json"  # whose folder of shards it is: {"corpus": name, "owner": project or roots}
ROOTS_NAME = "roots.txt"  # where the images of a folder of shards were read
# The folder of the store that keeps the states of unfinished trainings.
TRAINING = "training"


def store_root() -> Path:
    """Where unfinished and finished shards are kept: LTDPIPE_STORE, else .ltdpipe/store under DVC_ROOT or here.

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


def corpus_directory(store: Path, key: str, corpus: str, *, owner: Path | None, roots: str) -> Path:
    """Return where the features of a corpus are kept in a store.

    In a project's own store it is ``<key>/<corpus>``, so that a project may be moved. Elsewhere, and for a folder
    extracted by hand, a hash of the project's path or of the image roots follows the name.

    Args:
        store: the store's folder.
        key: the feature key.
        corpus: its name.
        owner: the project; None for a folder extracted by hand.
        roots: of the images, as ``roots.txt`` keeps them.
    """
    if owner is not None and is_own_store(store, owner):
        return store / key / corpus
    return store / key / f"{corpus}-{_short_hash(roots if owner is None else str(owner))}"


def read_owner(directory: Path) -> tuple[str, str | None]:
    """Return (corpus, owner) of a folder of shards; (its name, None) where an earlier version made it."""
    try:
        note = json.loads((directory / OWNER_NAME).read_text("utf-8"))
        return str(note["corpus"]), str(note["owner"])
    except (OSError, ValueError, KeyError, TypeError):
        return directory.name, None


def _short_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def size_fault(path: Path, record: ShardRecord) -> str | None:
    """Say whether a shard is missing or of another size, in words that follow its name; None when it is not."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    return None if size == record.size_bytes else f"has {size} bytes, expected {record.size_bytes}"


def shard_fault(path: Path, record: ShardRecord, *, rehash: bool = False) -> str | None:
    """Say what is wrong with a shard, in words that follow its name; None when it is sound.

    Args:
        path: where the shard lies.
        record: what it should be.
        rehash: hash it even if it is remembered as sound.
    """
    fault = size_fault(path, record)
    if fault is not None:
        return fault
    status = path.stat()
    if not rehash:
        with suppress(OSError, RuntimeError):
            if _memory(record.sha256, status).exists():
                return None
    if sha256_of(path) != record.sha256:
        return "has another content than was written (its sha256 differs)"
    remember_sound(record.sha256, status)
    return None


def remember_sound(sha256: str, status: os.stat_result) -> None:
    """Note that the file of this status had this hash."""
    with suppress(OSError, RuntimeError):  # a full disk, or no home folder, only costs the hashing next time
        memory = _memory(sha256, status)
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.touch()


def _memory(sha256: str, status: os.stat_result) -> Path:
    """Return the empty file whose presence says that the file of this status has this hash; one for each copy."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "ltdpipe", "checked", f"{sha256}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}")


@dataclass(frozen=True)
class Fault:
    """A damaged or missing file: its path, and what is wrong in words that follow the path."""

    path: Path
    what: str

    def __str__(self) -> str:
        """One line for the terminal."""
        return f"{self.path} {self.what}"


@dataclass(frozen=True)
class Finished:
    """What a folder holds.

    Attributes:
        rows: of all sidecars of sound shards, with the column ``shard``.
        shards: the sound shards by name.
        specs: key -> settings, of all readable sidecars.
        faults: damaged sidecars and shards, in the order of their numbers.
    """

    rows: pa.Table
    shards: dict[str, ShardRecord]
    specs: dict[str, FeatureSpec]
    faults: tuple[Fault, ...]

    def locate(self, manifest: pa.Table) -> list[int | None]:
        """For each manifest row, the number of the row here with the same path, size and mtime, or None."""
        found: list[int | None] = pc.index_in(_identity(manifest), value_set=_identity(self.rows)).to_pylist()
        return found


def read_folder(directory: Path, fault_of: Callable[[Path, ShardRecord], str | None]) -> Finished:
    """Read all sidecars of a folder of shards, and look at each shard with ``fault_of``; nothing is changed."""
    tables, shards, specs, faults = [], {}, {}, []
    for sidecar in sorted(directory.glob("shard-*.parquet")):
        shard = sidecar.with_suffix(".h5")
        try:
            rows, record, spec = read_sidecar(sidecar)
        except DataError as error:
            faults.append(Fault(sidecar, f"is damaged ({error})"))
            continue
        specs[spec.key] = spec
        if record.name != shard.name:
            faults.append(Fault(sidecar, f"describes {record.name}, not its own shard"))
        elif record.rows and (what := fault_of(shard, record)) is not None:
            faults.append(Fault(shard, what))
        else:
            tables.append(rows.append_column("shard", pa.array([record.name] * len(rows), pa.large_string())))
            shards[record.name] = record
    schema = SIDECAR_SCHEMA.append(pa.field("shard", pa.large_string()))
    return Finished(pa.concat_tables([schema.empty_table(), *tables]), shards, specs, tuple(faults))


@contextmanager
def locked(directory: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder of shards against other writers; the kernel frees the lock when the process dies.

    Args:
        directory: the folder; made where it is missing.
        on_wait: called with one line when another process holds it and this one has to wait.
    """
    path = directory / LOCK_NAME
    while True:
        with explained(path):
            directory.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        with file:
            if not try_lock(file, path):
                file.seek(0)
                on_wait(f"waiting for process {file.read().strip()}, which extracts into {directory}")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):  # the folder was pruned while this process waited
                continue
            with explained(path):
                os.truncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())  # no buffer, which closing would write again
            yield
            return


def try_lock(file: IO[str], path: Path, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file; return False where another process holds it.

    Args:
        file: the open file.
        path: its path, for the message.
        how: LOCK_EX or LOCK_SH.

    Raises:
        ResourceError: the file system has no locks.
    """
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be locked: its file system has no file locks ({os.strerror(error.errno or errno.ENOLCK)}); "
            "set LTDPIPE_STORE to a folder on one that has (on Lustre, one mounted with -o flock)"
        ) from error
    return True


class ShardFolder:
    """Shards ``shard-00000.h5`` with sidecars ``shard-00000.parquet`` in one directory, all of one feature key."""

    def __init__(self, directory: Path, spec: FeatureSpec, owner: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.spec = spec
        self._owner = owner

    @classmethod
    def of(cls, store: Path, corpus: str, spec: FeatureSpec, *, owner: Path | None, roots: str) -> ShardFolder:
        """Return the folder of a corpus in a store; see :func:`corpus_directory`."""
        directory = corpus_directory(store, spec.key, corpus, owner=owner, roots=roots).absolute()
        note = {"corpus": corpus, "owner": roots.replace("\n", " ").strip() if owner is None else str(owner)}
        _adopt(store / spec.key / corpus, directory, roots)
        return cls(directory, spec, note)

    @contextmanager
    def lock(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder against other writers (see :func:`locked`), and write down whose it is."""
        with locked(self.directory, on_wait):
            if self._owner is not None and read_owner(self.directory) != (self._owner["corpus"], self._owner["owner"]):
                write_text(self.directory / OWNER_NAME, json.dumps(self._owner))
            yield

    def clean(self, warn: Callable[[str], None]) -> Finished:
        """Remove what killed runs left, and return what is finished. The caller holds the lock.

        Args:
            warn: called with one line for each damaged file that is removed and will be made again.

        Raises:
            DataError: a shard here was made with other settings; the message names them.
        """
        remove_partials(self.directory)
        finished = read_folder(self.directory, shard_fault)
        for key, spec in finished.specs.items():
            if key != self.spec.key:
                raise DataError(
                    f"{self.directory} holds features made with other settings ({self.spec.difference(spec)}); "
                    "choose another folder, or delete it to extract again"
                )
        for fault in finished.faults:
            warn(f"removed {fault.path}, it will be made again: it {fault.what}")
            remove(fault.path.with_suffix(".parquet"), fault.path.with_suffix(".h5"))
        for orphan in self.directory.glob("shard-*.h5"):
            if orphan.name not in finished.shards:
                remove(orphan)
        return finished

    def forget(self, finished: Finished, rows: Sequence[int]) -> None:
        """Drop rows whose image has changed since from their sidecars, so that they are made again.

        The shard stays as it is: its features of those images are no longer read. The caller holds the lock, and
        calls :meth:`clean` again.

        Args:
            finished: what :meth:`clean` returned.
            rows: numbers of rows of ``finished.rows``.
        """
        kept = np.ones(len(finished.rows), dtype=bool)
        kept[np.asarray(rows, dtype=int)] = False
        self._rewrite(finished.rows.filter(kept), finished, rows)

    def set_times(self, finished: Finished, times: Mapping[int, int]) -> None:
        """Write the new modification times of files with unchanged content into their sidecars.

        The caller holds the lock, and calls :meth:`clean` again.

        Args:
            finished: what :meth:`clean` returned.
            times: number of a row of ``finished.rows`` -> time in ns.
        """
        values = finished.rows["mtime_ns"].to_numpy().copy()
        values[list(times)] = list(times.values())
        at = finished.rows.column_names.index("mtime_ns")
        rows = finished.rows.set_column(at, finished.rows.schema.field(at), pa.array(values))
        self._rewrite(rows, finished, list(times))

    def _rewrite(self, rows: pa.Table, finished: Finished, changed: Sequence[int]) -> None:
        """Write the sidecars that held ``changed`` rows of ``finished.rows`` anew, from ``rows``."""
        for name in finished.rows["shard"].take(pa.array(changed, pa.int64())).unique().to_pylist():
            own = rows.filter(pc.equal(rows["shard"], name)).drop_columns("shard")
            sidecar = (self.directory / name).with_suffix(".parquet")
            write_sidecar(sidecar, own.to_pylist(), finished.shards[name], self.spec)

    def free_numbers(self, finished: Finished) -> Iterator[int]:
        """Yield shard numbers not yet taken, lowest first: the names do not depend on when a run was killed."""
        taken = {int(name.removeprefix("shard-").removesuffix(".h5")) for name in finished.shards}
        return (number for number in itertools.count() if number not in taken)

    def add(self, number: int, arrays: Mapping[str, NDArray[np.float16]], rows: Sequence[dict[str, Any]]) -> None:
        """Write one shard, then its sidecar, each atomically.

        Args:
            number: a free shard number.
            arrays: tap -> features of the rows with ``row`` not None, in that order.
            rows: one mapping an image, with the columns of ``SIDECAR_SCHEMA``; ``row`` None where it failed.
        """
        shard = self.directory / f"shard-{number:05d}.h5"
        kept = sum(row["row"] is not None for row in rows)
        record = ShardRecord(shard.name, 0, "", 0)
        if kept:
            sha256 = write_shard(shard, arrays, self.spec)
            status = shard.stat()
            remember_sound(sha256, status)
            record = ShardRecord(shard.name, status.st_size, sha256, kept)
        write_sidecar(shard.with_suffix(".parquet"), rows, record, self.spec)

    def write_index(self, manifest: pa.Table, finished: Finished, located: Sequence[int | None], corpus: str) -> Index:
        """Merge manifest and sidecars into the index and return it; every manifest row must have been located."""
        if None in located:
            raise DataError(f"{self.directory} lacks {located.count(None)} of {len(manifest)} images of {corpus!r}")
        found = finished.rows.take(pa.array(located, pa.int64()))
        columns = {name: manifest[name] for name in MANIFEST_SCHEMA.names}
        columns |= {name: found[name] for name in INDEX_SCHEMA.names if name not in columns}
        used = sorted(set(found.filter(pc.is_valid(found["row"]))["shard"].to_pylist()))
        index = Index(
            pa.table(columns, schema=INDEX_SCHEMA), self.spec, corpus, tuple(finished.shards[name] for name in used)
        )
        write_index(self.directory / INDEX_NAME, index)
        return index


def _identity(table: pa.Table) -> pa.ChunkedArray:
    parts = [table["path"], table["size_bytes"].cast(pa.large_string()), table["mtime_ns"].cast(pa.large_string())]
    return pc.binary_join_element_wise(*parts, pa.scalar("\0", pa.large_string()))


def _adopt(old: Path, new: Path, roots: str) -> None:
    """Rename a folder that an earlier version made for a corpus of the same name and image roots."""
    note = old / ROOTS_NAME
    if new.exists() or (old / OWNER_NAME).exists() or not note.exists() or note.read_text("utf-8") != roots:
        return
    with locked(old, lambda _: None), explained(new):
        if not new.exists() and note.exists():
            old.rename(new)


def _is_at(file: IO[str], path: Path) -> bool:
    """Say whether an open file is still the one that lies at ``path``."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
