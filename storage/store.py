"""The growing set of finished shards of one corpus in one view.

A folder belongs to one feature key. Done means: the sidecar is there and the shard has the size that it states.
Whatever else lies there (a partial file, a shard without sidecar, a damaged shard) is removed by the next writer and
made again. Writers hold the folder's lock.

A shard that was hashed once and found sound is remembered by device, inode, size and modification time. What was not
touched since needs no second look; what was copied, restored, overwritten or replaced is hashed again.
``ltdpipe verify`` hashes whatever is remembered, since a disk may lose bits without any of the four changing.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.atomic import explained, remove, remove_partials, sha256_of, write_text
from storage.errors import DataError
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
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from storage.spec import FeatureSpec

LOCK_NAME = ".lock"
# The folder of the store that keeps the states of unfinished trainings.
TRAINING = "training"


def store_root() -> Path:
    """Where unfinished and finished shards are kept: LTDPIPE_STORE, else .ltdpipe/store under DVC_ROOT or here.

    DVC sets DVC_ROOT to the main repository also inside the temporary copies of ``dvc exp run``, so that experiments
    share the features.
    """
    override = os.environ.get("LTDPIPE_STORE")
    return Path(override) if override else Path(os.environ.get("DVC_ROOT", "."), ".ltdpipe", "store")


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
        with suppress(OSError):
            if _memory(record.sha256).read_bytes() == _stamp(status).encode():
                return None
    if sha256_of(path) != record.sha256:
        return "has another content than was written (its sha256 differs)"
    remember_sound(record.sha256, status)
    return None


def remember_sound(sha256: str, status: os.stat_result) -> None:
    """Note that the file of this status had this hash."""
    with suppress(OSError):  # a full or read-only disk only costs the hashing next time
        write_text(_memory(sha256), _stamp(status))


def _memory(sha256: str) -> Path:
    return store_root() / "checked" / sha256


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"


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
            tables.append(rows.append_column("shard", pa.array([record.name] * len(rows), pa.string())))
            shards[record.name] = record
    schema = SIDECAR_SCHEMA.append(pa.field("shard", pa.string()))
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
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                on_wait(f"waiting for process {file.read().strip()}, which extracts into {directory}")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):  # the folder was pruned while this process waited
                continue
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            return


class ShardFolder:
    """Shards ``shard-00000.h5`` with sidecars ``shard-00000.parquet`` in one directory, all of one feature key."""

    def __init__(self, directory: Path, spec: FeatureSpec) -> None:
        self.directory = directory
        self.spec = spec

    def lock(self, on_wait: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the folder against other writers; see :func:`locked`."""
        return locked(self.directory, on_wait)

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
        touched = finished.rows["shard"].take(pa.array(rows, pa.int64())).unique().to_pylist()
        remaining = finished.rows.filter(kept)
        for name in touched:
            own = remaining.filter(pc.equal(remaining["shard"], name)).drop_columns("shard")
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
    parts = [table["path"], table["size_bytes"].cast(pa.string()), table["mtime_ns"].cast(pa.string())]
    return pc.binary_join_element_wise(*parts, "\0")


def _is_at(file: IO[str], path: Path) -> bool:
    """Say whether an open file is still the one that lies at ``path``."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
