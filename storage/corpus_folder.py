"""The features of one corpus in one view: a folder of shards that grows in the store, and is published when complete.

A folder belongs to one feature key. A shard is done when its sidecar is there and the shard is what the sidecar says.
Whatever else lies there (a partial file, a shard without sidecar, a damaged shard) is removed by the next writer, and
its images are extracted again. Writers hold the folder's lock. Two projects, or two folders extracted by hand, never
share a folder.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.atomic import atomic_path, explained, fsync, remove, remove_partials, write_text
from storage.checked import remember_sound, shard_fault
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
from storage.locks import LOCK_NAME, locked
from storage.manifest import MANIFEST_SCHEMA
from storage.shard import write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from storage.checked import Check
    from storage.spec import FeatureSpec

OWNER_NAME = "owner.json"  # whose features they are: {"corpus": name, "owner": project or roots}
_OURS = re.compile(rf"shard-\d+\.(h5|parquet)|{re.escape(INDEX_NAME)}|.*\.partial|{re.escape(LOCK_NAME)}")
_ROWS_SCHEMA = SIDECAR_SCHEMA.append(pa.field("shard", pa.large_string()))


class CorpusFolder:
    """Shards ``shard-00000.h5``, their sidecars ``shard-00000.parquet`` and ``index.parquet`` in one folder.

    Attributes:
        directory: where it is.
        corpus: name of the corpus.
        owner: the project, or the image roots of a folder extracted by hand; None where that was not written down.
        rows: of the sidecars of all sound shards, with the column ``shard``; empty until :meth:`read`.
        shards: the sound shards by name; empty until :meth:`read`.
        faults: damaged sidecars and shards -> what is wrong, in words that follow the path.
    """

    def __init__(
        self, directory: Path, spec: FeatureSpec | None = None, *, corpus: str | None = None, owner: str | None = None
    ) -> None:
        """Name a folder, which need not exist.

        Args:
            directory: where it is.
            spec: settings of its features; None: those of its sidecars.
            corpus: name of the corpus, written down by :meth:`lock` with its ``owner``; None: as written down.
            owner: see the class.
        """
        self.directory = directory
        self._spec = spec
        self._new_owner = None if owner is None else {"corpus": corpus, "owner": owner}
        written = _read_owner(directory)
        self.corpus = corpus or (directory.name if written is None else written["corpus"])
        self.owner = owner or (None if written is None else written["owner"])
        self.rows = _ROWS_SCHEMA.empty_table()
        self.shards: dict[str, ShardRecord] = {}
        self.faults: dict[Path, str] = {}

    @property
    def spec(self) -> FeatureSpec:
        """The settings of its features.

        Raises:
            DataError: they were not given, and no sidecar that was read tells them.
        """
        if self._spec is None:
            raise DataError(f"{self.directory} holds no shard; run `ltdpipe extract`")
        return self._spec

    def describe(self) -> str:
        """Say the settings of its features in one line, for people."""
        return "settings unknown: no readable sidecar" if self._spec is None else self._spec.describe()

    @contextmanager
    def lock(self, notify: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder against other writers (:func:`storage.locks.locked`), and write down whose it is."""
        with locked(self.directory, notify):
            if self._new_owner is not None and _read_owner(self.directory) != self._new_owner:
                write_text(self.directory / OWNER_NAME, json.dumps(self._new_owner))
            yield

    def read(self, check: Check = "remembered") -> None:
        """Read all sidecars and look at all shards; nothing is changed.

        Args:
            check: how closely (:func:`storage.checked.shard_fault`).

        Raises:
            DataError: a shard was made with other settings than this folder's; the message names them.
        """
        tables, self.shards, self.faults = [_ROWS_SCHEMA.empty_table()], {}, {}
        for sidecar in sorted(self.directory.glob("shard-*.parquet")):
            shard = sidecar.with_suffix(".h5")
            try:
                rows, record, spec = read_sidecar(sidecar)
            except DataError as error:
                self.faults[sidecar] = f"is damaged ({error})"
                continue
            self._spec = self._spec or spec
            if spec.key != self._spec.key:
                raise DataError(
                    f"{self.directory} holds features made with other settings ({self._spec.difference(spec)}); "
                    "choose another folder, or delete it to extract again"
                )
            if record.name != shard.name:
                self.faults[sidecar] = f"describes {record.name}, not its own shard"
            elif record.rows and (fault := shard_fault(shard, record, check)) is not None:
                self.faults[shard] = fault
            else:
                tables.append(rows.append_column("shard", pa.array([record.name] * len(rows), pa.large_string())))
                self.shards[record.name] = record
        self.rows = pa.concat_tables(tables)

    def clean(self, notify: Callable[[str], None]) -> None:
        """Read the folder and remove what killed runs left. The caller holds the lock.

        Args:
            notify: called with one line for each damaged file that is removed.

        Raises:
            DataError: as :meth:`read`.
        """
        remove_partials(self.directory)
        self.read()
        for path, fault in self.faults.items():
            notify(f"{path} {fault}: removed, its images will be extracted again")
            remove(path.with_suffix(".parquet"), path.with_suffix(".h5"))
        self.faults = {}
        remove(*(shard for shard in self.directory.glob("shard-*.h5") if shard.name not in self.shards))

    def locate(self, manifest: pa.Table) -> pa.ChunkedArray:
        """Return (N,) the number in ``rows`` of each manifest row, by path, size and time; null where there is none."""
        return pc.index_in(_identity(manifest), value_set=_identity(self.rows))

    def missing(self, manifest: pa.Table) -> NDArray[np.int64]:
        """Return the numbers, ascending, of the manifest's rows whose images are not done."""
        return np.flatnonzero(pc.is_null(self.locate(manifest)))

    def add(self, number: int, arrays: Mapping[str, NDArray[Any]], rows: Sequence[dict[str, Any]]) -> None:
        """Write one shard, then its sidecar, each atomically.

        Args:
            number: one of :meth:`free_numbers`.
            arrays: tap -> float16 features of the rows with ``row`` not None, in their order, of the shapes that
                ``FeatureSpec.tap_shape`` gives.
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
        table = pa.Table.from_pylist(list(rows), schema=SIDECAR_SCHEMA)
        write_sidecar(shard.with_suffix(".parquet"), table, record, self.spec)

    def free_numbers(self) -> Iterator[int]:
        """Yield shard numbers not yet taken, lowest first: the names do not depend on when a run was killed."""
        taken = {int(name.removeprefix("shard-").removesuffix(".h5")) for name in self.shards}
        return (number for number in itertools.count() if number not in taken)

    def forget(self, rows: Sequence[int]) -> None:
        """Drop rows, by their numbers in ``rows``, from their sidecars; their images are then missing.

        The features stay in the shard and are no longer read. The caller holds the lock.
        """
        dropped = pc.is_in(pa.array(range(len(self.rows))), value_set=pa.array(rows, pa.int64()))
        self._rewrite(self.rows.filter(pc.invert(dropped)), rows)

    def set_times(self, times: Mapping[int, int]) -> None:
        """Write down new modification times: number in ``rows`` -> time in ns. The caller holds the lock."""
        values = self.rows["mtime_ns"].to_numpy().copy()
        values[list(times)] = list(times.values())
        at = _ROWS_SCHEMA.get_field_index("mtime_ns")
        self._rewrite(self.rows.set_column(at, _ROWS_SCHEMA.field(at), pa.array(values)), list(times))

    def _rewrite(self, rows: pa.Table, changed: Sequence[int]) -> None:
        """Replace ``self.rows``, and write the sidecars anew that hold its ``changed`` rows."""
        for name in self.rows["shard"].take(pa.array(changed, pa.int64())).unique().to_pylist():
            own = rows.filter(pc.equal(rows["shard"], name)).drop_columns("shard")
            write_sidecar((self.directory / name).with_suffix(".parquet"), own, self.shards[name], self.spec)
        self.rows = rows

    def write_index(self, manifest: pa.Table) -> Index:
        """Join manifest and sidecars into the index, and return it.

        Raises:
            DataError: an image of the manifest is missing.
        """
        located = self.locate(manifest)
        if located.null_count:
            raise DataError(f"{self.directory} lacks {located.null_count} of {len(manifest)} images of {self.corpus!r}")
        found = self.rows.take(located)
        columns = {name: manifest[name] for name in MANIFEST_SCHEMA.names}
        columns |= {name: found[name] for name in INDEX_SCHEMA.names if name not in columns}
        used = sorted(found.filter(pc.is_valid(found["row"]))["shard"].unique().to_pylist())
        shards = tuple(self.shards[name] for name in used)
        index = Index(pa.table(columns, schema=INDEX_SCHEMA), self.spec, self.corpus, shards)
        write_index(self.directory / INDEX_NAME, index)
        return index

    def publish(self, target: Path, shards: Sequence[ShardRecord], notify: Callable[[str], None]) -> None:
        """Make ``target`` show this folder's index and the shards that it uses; what it showed before is removed.

        The old index goes first and the new one comes last: whatever stops this half-way, a target with an index is
        complete, and one without is refused. ``notify`` is called with one line when files had to be copied.

        Raises:
            DataError: the target holds files that are not ours.
            ResourceError: the target cannot be written to.
        """
        wanted = [name for shard in shards for name in (shard.name, Path(shard.name).with_suffix(".parquet").name)]
        with explained(target):
            target.mkdir(parents=True, exist_ok=True)
        refuse_foreign(target)
        remove(target / INDEX_NAME, *(old for old in target.iterdir() if old.name not in wanted))
        copied = sum(link(self.directory / name, target / name) for name in [*wanted, INDEX_NAME])
        with explained(target):
            fsync(target)
        if copied:
            notify(f"copied {copied} files to {target}: no hard links from {self.directory} (another file system?)")


def refuse_foreign(target: Path) -> None:
    """Refuse a folder to publish to that holds files of others; one that does not exist holds none.

    Raises:
        DataError: it does.
        ResourceError: it cannot be read, or is no folder.
    """
    with explained(target):
        names = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    if foreign:
        raise DataError(f"{target} holds files of another origin ({', '.join(foreign[:3])}); choose an empty folder")


def link(source: Path, target: Path) -> bool:
    """Make ``target`` the same file as ``source``, or a copy where no link is possible; return whether it was copied.

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


def _identity(table: pa.Table) -> pa.ChunkedArray:
    parts = [table["path"], table["size_bytes"].cast(pa.large_string()), table["mtime_ns"].cast(pa.large_string())]
    return pc.binary_join_element_wise(*parts, pa.scalar("\0", pa.large_string()))


def _read_owner(directory: Path) -> dict[str, str] | None:
    try:
        note = json.loads((directory / OWNER_NAME).read_text("utf-8"))
        return {"corpus": str(note["corpus"]), "owner": str(note["owner"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
