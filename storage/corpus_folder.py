"""The features of one corpus in one view: a folder of shards that grows in the store, and is published when complete.

A folder belongs to one feature key. A shard is done when its sidecar is there and the shard is what the sidecar says.
What a stopped run had done of a shard is kept as an unfinished one (:mod:`storage.unfinished`).
Whatever else lies there (a partial file, a shard without sidecar, a damaged shard) is removed by the next writer, and
its images are extracted again. Writers hold the folder's lock. Two projects, or two folders extracted by hand, never
share a folder.
"""

from __future__ import annotations

import itertools
import json
from bisect import bisect_left, bisect_right
from contextlib import contextmanager
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
    ShardRecord,
    read_sidecar,
    remember_sound,
    shard_fault,
    sidecar_of,
    sidecars,
    write_index_parts,
    write_sidecar,
)
from storage.manifest import MANIFEST_SCHEMA
from storage.shard import write_shard
from storage.threads import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.index import Check
    from storage.spec import FeatureSpec

# Rows of sidecars in memory at a time; all of 25 million images would take 12 GiB.
_ROWS_AT_ONCE = 1 << 17
_ROWS_A_GROUP = 1 << 20  # of the index's Parquet file
OWNER_NAME = "owner.json"  # whose features they are: {"corpus": name, "owner": project or roots}


class CorpusFolder:
    """Shards ``shard-00000.h5``, their sidecars ``shard-00000.rows`` and ``index.parquet`` in one folder.

    Attributes:
        directory: where it is; it need not exist.
        corpus: name of the corpus.
        owner: the project, or the image roots of a folder extracted by hand; None where that was not written down.
        shards: the sound shards by name; empty until :meth:`read`.
        images: name of a sound shard -> rows of its sidecar, failed images among them. The rows of all of them are
            numbered in this order.
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
        self.shards: dict[str, ShardRecord] = {}
        self.images: dict[str, int] = {}
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
        self.shards, self.images, self.faults = {}, {}, {}
        found = sidecars(self.directory)
        for sidecar, looked in zip(found, at_once(_look, found, itertools.repeat(check)), strict=True):
            shard = sidecar.with_suffix(".h5")
            if isinstance(looked, DataError):
                self.faults[sidecar] = f"is damaged ({looked})"
                continue
            images, record, spec, fault = looked
            self._spec = self._spec or spec
            if spec.key != self._spec.key:
                raise DataError(
                    f"{self.directory} holds features made with other settings ({self._spec.difference(spec)}); "
                    "choose another folder, or delete it to extract again"
                )
            if record.name != shard.name:
                self.faults[sidecar] = f"describes {record.name}, not its own shard"
            elif fault is not None:
                self.faults[shard] = fault
            else:
                self.shards[record.name] = record
                self.images[record.name] = images

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

    def rows(self, *columns: str) -> Iterator[tuple[int, pa.Table]]:
        """Yield parts of the rows of all sound shards: the number of the part's first row, and these columns."""
        first, ends = 0, itertools.accumulate(self.images.values())
        filled = ((name, end) for (name, count), end in zip(self.images.items(), ends, strict=True) if count)
        for _, shards in itertools.groupby(filled, lambda shard: shard[1] // _ROWS_AT_ONCE):
            part = pa.concat_tables([self._sidecar(name, columns) for name, _ in shards])
            yield first, part
            first += len(part)

    def locate(self, manifest: pa.Table) -> NDArray[np.int64]:
        """Return (N,) the number of the row of each image of a manifest, by path, size and time; -1 for none.

        Of the manifest, which is sorted by path, only what lies between the paths of a part of the rows is compared.
        """
        located, paths = np.full(len(manifest), -1), manifest["path"]
        for first, rows in self.rows(*IDENTITY):
            extremes = pc.min_max(rows["path"]).as_py()
            start = bisect_left(range(len(paths)), extremes["min"], key=lambda at: paths[at].as_py())
            stop = bisect_right(range(len(paths)), extremes["max"], key=lambda at: paths[at].as_py())
            at = pc.index_in(_identity(manifest.slice(start, stop - start)), value_set=_identity(rows))
            located[start + np.flatnonzero(at.is_valid())] = first + at.drop_null().to_numpy()
        return located

    def missing(self, manifest: pa.Table) -> NDArray[np.int64]:
        """Return the numbers, ascending, of the manifest's rows whose images are not done."""
        return np.flatnonzero(self.locate(manifest) < 0)

    def add(self, number: int, arrays: Mapping[str, NDArray[Any]], rows: Sequence[dict[str, Any]]) -> None:
        """Write one shard, then its sidecar, each atomically.

        Args:
            number: one of :meth:`free_numbers`.
            arrays: tap -> float16 features of the rows with ``row`` not None, in their order, of the shapes that
                ``FeatureSpec.tap_shape`` gives.
            rows: one mapping an image, with the columns of ``SIDECAR_SCHEMA``; ``row`` None where it failed.
        """
        self.write(self.directory / f"shard-{number:05d}.h5", arrays, rows)
        remove(*self.directory.glob(f"unfinished-{number:05d}-*"))

    def write(self, shard: Path, arrays: Mapping[str, NDArray[Any]], rows: Sequence[dict[str, Any]]) -> None:
        """Write a shard of any name and its sidecar; see :meth:`add`."""
        kept = sum(row["row"] is not None for row in rows)
        record = ShardRecord(shard.name, 0, "", 0)
        if kept:
            sha256 = write_shard(shard, arrays, self.spec)
            status = shard.stat()
            remember_sound(sha256, status)
            record = ShardRecord(shard.name, status.st_size, sha256, kept)
        table = pa.Table.from_pylist(list(rows), schema=SIDECAR_SCHEMA)
        write_sidecar(sidecar_of(shard), table, record, self.spec)

    def free_numbers(self) -> Iterator[int]:
        """Yield shard numbers not yet taken, lowest first: the names do not depend on when a run was killed."""
        taken = {int(name.removeprefix("shard-").removesuffix(".h5")) for name in self.shards}
        return (number for number in itertools.count() if number not in taken)

    def forget(self, rows: Sequence[int]) -> None:
        """Drop rows, by their numbers, from their sidecars; their images are then missing.

        The features stay in the shard and are no longer read. The caller holds the lock.
        """
        self._rewrite(rows, lambda own, at, _: own.filter(~np.isin(np.arange(len(own)), at)))

    def set_times(self, times: Mapping[int, int]) -> None:
        """Write down new modification times: number of a row -> time in ns. The caller holds the lock."""
        column, new = IDENTITY.index("mtime_ns"), np.array(list(times.values()))

        def changed(own: pa.Table, at: NDArray[np.int64], which: NDArray[np.bool_]) -> pa.Table:
            values = own["mtime_ns"].to_numpy().copy()
            values[at] = new[which]
            return own.set_column(column, SIDECAR_SCHEMA.field(column), pa.array(values))

        self._rewrite(list(times), changed)

    def _rewrite(self, numbers: Sequence[int], change: Callable[..., pa.Table]) -> None:
        """Write the sidecars anew that hold rows of these numbers.

        ``change`` gets a sidecar's rows, which of them are meant, and (N,) which of the numbers these are.
        """
        shard, at = self._places(np.asarray(numbers))
        for number, name in enumerate(self.images):
            which = shard == number
            if which.any():
                own = change(self._sidecar(name), at[which], which)
                write_sidecar(sidecar_of(self.directory / name), own, self.shards[name], self.spec)
                self.images[name] = len(own)

    def write_index(self, manifest: pa.Table) -> tuple[ShardRecord, ...]:
        """Join manifest and sidecars into the index, and return the shards that it needs.

        Raises:
            DataError: an image of the manifest is missing.
        """
        located = self.locate(manifest)
        if lacking := np.count_nonzero(located < 0):
            raise DataError(f"{self.directory} lacks {lacking} of {len(manifest)} images of {self.corpus!r}")
        starts = range(0, len(manifest), _ROWS_A_GROUP)
        parts = (self._joined(manifest.slice(at, _ROWS_A_GROUP), located[at : at + _ROWS_A_GROUP]) for at in starts)
        return write_index_parts(self.directory / INDEX_NAME, parts, self.spec, self.corpus, self.shards)

    def _joined(self, images: pa.Table, located: NDArray[np.int64]) -> pa.Table:
        """Return the index's rows of some images, whose rows in the sidecars have the numbers ``located``."""
        shard, at = self._places(located)
        names = pa.array(self.images, pa.large_string())
        used, position = np.unique(shard, return_inverse=True)
        sidecars_rows = [self._sidecar(names[int(number)].as_py()) for number in used]
        before = np.cumsum([0, *map(len, sidecars_rows)])
        rows = pa.concat_tables(sidecars_rows).take(before[position] + at)
        columns = {"shard": names.take(pa.array(shard))} | {name: rows[name] for name in rows.column_names}
        columns |= {name: images[name] for name in MANIFEST_SCHEMA.names}
        return pa.table([columns[name] for name in INDEX_SCHEMA.names], schema=INDEX_SCHEMA)

    def _places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (N,) which shard each of these rows is of, and (N,) which row of its sidecar it is."""
        starts = np.cumsum([0, *self.images.values()])
        shard = np.searchsorted(starts, numbers, side="right") - 1
        return shard, numbers - starts[shard]

    def _sidecar(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        return read_sidecar(sidecar_of(self.directory / shard), columns)[0]


def _look(sidecar: Path, check: Check) -> tuple[int, ShardRecord, FeatureSpec, str | None] | DataError:
    """Return how many rows a sidecar has, what it states, and what is wrong with its shard; or why it is damaged."""
    try:
        rows, record, spec = read_sidecar(sidecar, ["row"])
    except DataError as error:
        return error
    return len(rows), record, spec, shard_fault(sidecar.with_suffix(".h5"), record, check) if record.rows else None


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
