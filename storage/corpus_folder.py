"""The features of one corpus in one view: a folder of shards that grows in the store, and is published when complete.

A folder belongs to one feature key. A shard is done when its sidecar is there and the shard is what the sidecar says.
What a stopped run had done of a shard is kept as an unfinished one, a shard of the first images under another name.
Whatever else lies there (a partial file, a shard without sidecar, a damaged shard) is removed by the next writer, and
its images are extracted again. Writers hold the folder's lock. Two projects, or two folders extracted by hand, never
share a folder.
"""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.atomic import PARTIAL_SUFFIX, locked, remove, write_text
from storage.errors import DataError
from storage.index import (
    IDENTITY,
    INDEX_NAME,
    INDEX_SCHEMA,
    SIDECAR_SCHEMA,
    Index,
    ShardRecord,
    read_sidecar,
    remember_sound,
    shard_fault,
    sidecar_of,
    sidecars,
    write_index,
    write_sidecar,
)
from storage.manifest import MANIFEST_SCHEMA
from storage.shard import Shard, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.index import Check
    from storage.spec import FeatureSpec

    # tap -> features of the first images of a shard (no tap where all of them failed), and the rows of these images
    Unfinished = tuple[Mapping[str, NDArray[np.float16]], list[dict[str, Any]]]

_ROWS_AT_ONCE = 1 << 21  # that are compared: a part of 25 million rows, whose texts and hashes would take 12 GiB
OWNER_NAME = "owner.json"  # whose features they are: {"corpus": name, "owner": project or roots}
_ROWS_SCHEMA = SIDECAR_SCHEMA.append(pa.field("shard", pa.large_string()))


class CorpusFolder:
    """Shards ``shard-00000.h5``, their sidecars ``shard-00000.rows`` and ``index.parquet`` in one folder.

    Attributes:
        directory: where it is; it need not exist.
        corpus: name of the corpus.
        owner: the project, or the image roots of a folder extracted by hand; None where that was not written down.
        rows: of the sidecars of all sound shards, with the column ``shard``; empty until :meth:`read`.
        shards: the sound shards by name; empty until :meth:`read`.
        faults: damaged sidecars and shards -> what is wrong, in words that follow the path.
    """

    def __init__(
        self, directory: Path, spec: FeatureSpec | None = None, *, corpus: str | None = None, owner: str | None = None
    ) -> None:
        """Name a folder. What is not given is read from it: the spec from its sidecars, the rest from its note."""
        self.directory = directory
        self._spec = spec
        self._new_owner = None if owner is None else {"corpus": corpus, "owner": owner}
        written = _read_owner(directory)
        self.corpus = corpus or written.get("corpus") or directory.name
        self.owner = owner or written.get("owner")
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
        """Hold the folder against other writers (:func:`storage.atomic.locked`), and write down whose it is."""
        with locked(self.directory, notify):
            if self._new_owner is not None and _read_owner(self.directory) != self._new_owner:
                write_text(self.directory / OWNER_NAME, json.dumps(self._new_owner))
            yield

    def read(self, check: Check = "remembered") -> None:
        """Read all sidecars and look at all shards; nothing is changed.

        Args:
            check: how closely (:func:`storage.index.shard_fault`).

        Raises:
            DataError: a shard was made with other settings than this folder's; the message names them.
        """
        tables, self.shards, self.faults = [_ROWS_SCHEMA.empty_table()], {}, {}
        for sidecar in sidecars(self.directory):
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
        """Read the folder and remove what killed runs left; the caller holds the lock.

        ``notify`` is called with one line for each damaged file that is removed.

        Raises:
            DataError: as :meth:`read`.
        """
        remove(*self.directory.glob(f"*{PARTIAL_SUFFIX}"))
        self.read()
        for path, fault in self.faults.items():
            notify(f"{path} {fault}: removed, its images will be extracted again")
            remove(sidecar_of(path), path.with_suffix(".h5"))
        self.faults = {}
        remove(*(shard for shard in self.directory.glob("shard-*.h5") if shard.name not in self.shards))

    def locate(self, manifest: pa.Table) -> pa.ChunkedArray:
        """Return (N,) the number in ``rows`` of each manifest row, by path, size and time; null where there is none.

        Rows that are alike have the same sum of size and time, so a part of all sums can be compared at once.
        """
        parts = 1 + (len(manifest) + len(self.rows)) // _ROWS_AT_ONCE
        mine, theirs = (pc.add(table["size_bytes"], table["mtime_ns"]).to_numpy() % parts
                        for table in (manifest, self.rows))  # fmt: skip
        located = np.full(len(manifest), -1)
        for part in range(parts):
            wanted, there = mine == part, theirs == part
            at = pc.index_in(_identity(manifest.filter(wanted)), value_set=_identity(self.rows.filter(there)))
            located[np.flatnonzero(wanted)[at.is_valid()]] = np.flatnonzero(there)[at.drop_null()]
        return pa.chunked_array([pa.array(located, mask=located < 0)])

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
        self._write(self.directory / f"shard-{number:05d}.h5", arrays, rows)
        remove(*self._unfinished(number))

    def _write(self, shard: Path, arrays: Mapping[str, NDArray[Any]], rows: Sequence[dict[str, Any]]) -> None:
        kept = sum(row["row"] is not None for row in rows)
        record = ShardRecord(shard.name, 0, "", 0)
        if kept:
            sha256 = write_shard(shard, arrays, self.spec)
            status = shard.stat()
            remember_sound(sha256, status)
            record = ShardRecord(shard.name, status.st_size, sha256, kept)
        table = pa.Table.from_pylist(list(rows), schema=SIDECAR_SCHEMA)
        write_sidecar(sidecar_of(shard), table, record, self.spec)

    def keep_unfinished(self, number: int, arrays: Mapping[str, NDArray[Any]], rows: Sequence[dict[str, Any]]) -> None:
        """Keep what is done of shard ``number``: features and rows of its first images, as :meth:`add` takes them."""
        older = list(self._unfinished(number))
        shard = self.directory / f"unfinished-{number:05d}-{len(rows):06d}.h5"
        self._write(shard, arrays, rows)
        remove(*(path for path in older if path.stem != shard.stem))

    def read_unfinished(self, shards: Mapping[int, pa.Table]) -> dict[int, Unfinished]:
        """Return what is kept of unfinished shards, by their numbers.

        Args:
            shards: number of a shard -> the images that it is to hold; what is kept of others is passed over.
        """
        kept: dict[int, Unfinished] = {}
        for sidecar in sidecars(self.directory, "unfinished"):  # the longest of a shard comes last
            shard, number = sidecar.with_suffix(".h5"), int(sidecar.stem.split("-")[1])
            with suppress(DataError):  # damaged: as if nothing were kept
                rows, record, spec = read_sidecar(sidecar)
                images = shards.get(number, rows.slice(0, 0)).select(IDENTITY).slice(0, len(rows))
                fits = spec.key == self.spec.key and rows.select(IDENTITY).equals(images)
                if fits and not (record.rows and shard_fault(shard, record)):
                    taps = {tap: Shard.open(shard).map(tap) for tap in spec.taps} if record.rows else {}
                    kept[number] = taps, rows.to_pylist()
        return kept

    def count_unfinished(self) -> int:
        """Count the images that are kept of unfinished shards, by the names of their files alone."""
        kept: dict[str, int] = {}
        for sidecar in sidecars(self.directory, "unfinished"):  # the longest of a shard comes last
            _, shard, images = sidecar.stem.split("-")
            kept[shard] = int(images)
        return sum(kept.values())

    def drop_unfinished(self) -> None:
        """Drop what is kept of unfinished shards."""
        remove(*self.directory.glob("unfinished-*"))

    def _unfinished(self, number: int) -> Iterator[Path]:
        return self.directory.glob(f"unfinished-{number:05d}-*")

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
            write_sidecar(sidecar_of(self.directory / name), own, self.shards[name], self.spec)
        self.rows = rows

    def write_index(self, manifest: pa.Table) -> Index:
        """Join manifest and sidecars into the index, and return it.

        Raises:
            DataError: an image of the manifest is missing.
        """
        located = self.locate(manifest)
        if located.null_count:
            raise DataError(f"{self.directory} lacks {located.null_count} of {len(manifest)} images of {self.corpus!r}")
        columns = {name: manifest[name] if name in MANIFEST_SCHEMA.names else self.rows[name].take(located)
                   for name in INDEX_SCHEMA.names}  # fmt: skip
        used = sorted(columns["shard"].filter(pc.is_valid(columns["row"])).unique().to_pylist())
        shards = tuple(self.shards[name] for name in used)
        index = Index(pa.table(columns, schema=INDEX_SCHEMA), self.spec, self.corpus, shards)
        write_index(self.directory / INDEX_NAME, index)
        return index


def _identity(table: pa.Table) -> pa.ChunkedArray:
    path, *numbers = (table[name].cast(pa.large_string()) for name in IDENTITY)
    return pc.binary_join_element_wise(path, *numbers, pa.scalar("\0", pa.large_string()))


def _read_owner(directory: Path) -> dict[str, str]:
    """Return the folder's note of corpus and owner; empty where there is none that can be read."""
    try:
        note = json.loads((directory / OWNER_NAME).read_text("utf-8"))
        return {"corpus": str(note["corpus"]), "owner": str(note["owner"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
