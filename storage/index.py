"""What is known of extracted images: sidecars beside the shards, and the index, which joins them with the manifest.

A sidecar has a row for each image of its shard, so a lost index is rebuilt without inference. A shard that was hashed
and found sound is remembered by inode, size and modification time in the user's cache folder; one that was copied,
restored or replaced is hashed again. The device is left out: its number differs between the nodes that mount one disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.atomic import sha256_of, write_text
from storage.errors import DataError
from storage.manifest import MANIFEST_SCHEMA
from storage.parquet import read_parquet, write_parquet, write_parts
from storage.spec import SCHEMA_VERSION, FeatureSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

Check = Literal["size", "remembered", "hash"]

INDEX_NAME = "index.parquet"
SIDECAR = ".rows"  # a Parquet file, under a name that ``*.parquet`` does not take for images of their own
_FORMER_SIDECAR = ".parquet"

# Filled while decoding; null where a file could not be read that far.
_FACTS = [
    pa.field("sha256", pa.large_string()),
    pa.field("format", pa.large_string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("mode", pa.large_string()),
    pa.field("jpeg_quality", pa.int16()),
    pa.field("status", pa.large_string(), nullable=False),
    pa.field("error", pa.large_string()),
]
# The identity of a file when it was read: a row is reused only while these still fit the manifest.
IDENTITY = ["path", "size_bytes", "mtime_ns"]
SIDECAR_SCHEMA = pa.schema([*map(MANIFEST_SCHEMA.field, IDENTITY), *_FACTS, pa.field("row", pa.int32())])
INDEX_SCHEMA = pa.schema([*MANIFEST_SCHEMA, *_FACTS, pa.field("shard", pa.large_string()), pa.field("row", pa.int32())])

_FINGERPRINT = ["path", "label", "generator", "split", "sets", "category", "sha256", "status", "row", "shard"]
_METADATA_KEY = b"ltdpipe"


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: its file name, size in bytes, sha256, and how many rows of features it holds."""

    name: str
    size_bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class Index:
    """An index as read: its rows (``status`` "ok" or "failed"), the spec, the corpus name, the shards."""

    table: pa.Table
    spec: FeatureSpec
    corpus: str
    shards: tuple[ShardRecord, ...]


def sidecar_of(file: Path) -> Path:
    """Return where the sidecar of a shard lies, or is to lie, by the path of either of them."""
    former = file.with_suffix(_FORMER_SIDECAR)
    return former if former.exists() else file.with_suffix(SIDECAR)


def sidecars(folder: Path, kind: str = "shard") -> list[Path]:
    """Return the sidecars in a folder, of its shards or of its ``unfinished`` ones, in the order of their names."""
    return sorted(path for path in folder.glob(f"{kind}-*") if path.suffix in {SIDECAR, _FORMER_SIDECAR})


def write_sidecar(path: Path, rows: pa.Table, record: ShardRecord, spec: FeatureSpec) -> None:
    """Write a shard's sidecar atomically; its presence, with a shard of the size it states, means done."""
    write_parquet(rows.replace_schema_metadata(_metadata({"shard": asdict(record)}, spec)), path)


def read_sidecar(path: Path, columns: Sequence[str] | None = None) -> tuple[pa.Table, ShardRecord, FeatureSpec]:
    """Return a sidecar's rows (all of their columns, or the named ones), its shard and the settings of its features.

    Raises:
        DataError: the file is damaged.
    """
    remedy = "delete it and run `ltdpipe extract` again"
    table, metadata, spec = _read(path, SIDECAR_SCHEMA, columns, what="sidecar", remedy=remedy)
    return table, metadata["shards"][0], spec


def write_index(path: Path, index: Index) -> None:
    """Write an index atomically, with its spec and its list of shards in the metadata."""
    shards = [asdict(shard) for shard in index.shards]
    metadata = _metadata({"corpus": index.corpus, "shards": shards}, index.spec)
    write_parquet(index.table.replace_schema_metadata(metadata), path)


def write_index_parts(
    path: Path, parts: Iterable[pa.Table], spec: FeatureSpec, corpus: str, shards: Mapping[str, ShardRecord]
) -> tuple[ShardRecord, ...]:
    """Write an index whose rows come in parts; return those of the ``shards`` (by name) that its rows are read from."""
    used: set[str] = set()

    def noted() -> Iterable[pa.Table]:
        for part in parts:
            used.update(part["shard"].filter(pc.is_valid(part["row"])).unique().to_pylist())
            yield part

    def metadata() -> dict[bytes, bytes]:
        return _metadata({"corpus": corpus, "shards": [asdict(shards[name]) for name in sorted(used)]}, spec)

    write_parts(noted(), path, INDEX_SCHEMA, metadata)
    return tuple(shards[name] for name in sorted(used))


def read_index(path: Path, columns: Sequence[str] | None = None) -> Index:
    """Read an index, with all of its columns or the named ones.

    Raises:
        DataError: it is missing, damaged, or was written in another form than this version reads.
    """
    remedy = "name an extracted view, or run `ltdpipe extract` again"
    table, metadata, spec = _read(path, INDEX_SCHEMA, columns, what="index", remedy=remedy)
    return Index(table, spec, metadata["corpus"], metadata["shards"])


def shard_fault(path: Path, record: ShardRecord, check: Check = "remembered") -> str | None:
    """Say what is wrong with a shard, in words that follow its name; None when it is what its record says.

    Args:
        path: where the shard lies.
        record: what it should be.
        check: "size" looks at the size alone, "remembered" hashes what is not known to be sound, "hash" hashes always:
            a disk may lose bits without inode, size or time changing.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return "is missing"
    if status.st_size != record.size_bytes:
        return f"has {status.st_size} bytes, expected {record.size_bytes}"
    if check == "size" or (check == "remembered" and _is_remembered(record.sha256, status)):
        return None
    if sha256_of(path) != record.sha256:
        return "has another content than was written (its sha256 differs)"
    remember_sound(record.sha256, status)
    return None


def remember_sound(sha256: str, status: os.stat_result) -> None:
    """Note that the file of this status has this hash."""
    with suppress(OSError, RuntimeError):  # a full disk, or no home folder, only costs the hashing next time
        note = _note(sha256, status)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _is_remembered(sha256: str, status: os.stat_result) -> bool:
    with suppress(OSError, RuntimeError):
        return _note(sha256, status).exists()
    return False


def _note(sha256: str, status: os.stat_result) -> Path:
    """Return the empty file whose presence says that the file of this status has this hash; one for each copy."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "ltdpipe", "checked", f"{sha256}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}")


def fingerprint(index: Index) -> str:
    """Return a sha256 over an index's rows without sizes and times, with the content hash of each row's shard."""
    shards = {record.name: record.sha256 for record in index.shards}
    digest = hashlib.sha256()
    for batch in index.table.select(_FINGERPRINT).to_batches(max_chunksize=1 << 16):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update(json.dumps([*row, shards.get(row[-1])]).encode() + b"\n")
    return digest.hexdigest()


def write_contents(features: Path, out: Path) -> None:
    """Write the feature key and the fingerprint of every view of a corpus into one file.

    Later stages depend on this small file instead of thousands of shards. It changes with any image, label, set or
    shard; not with file sizes and times, so that a touched image changes nothing.
    """
    contents = {}
    for path in sorted(features.glob(f"*/{INDEX_NAME}")):
        index = read_index(path, _FINGERPRINT)
        contents[path.parent.name] = {"key": index.spec.key, "rows": fingerprint(index)}
    write_text(out, json.dumps(contents, indent=0) + "\n")


def set_names(table: pa.Table) -> list[str]:
    """Return the names of all test sets of a manifest or index table."""
    names: list[str] = sorted(pc.unique(pc.list_flatten(table["sets"])).to_pylist())
    return names


def rows_of_set(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Return the numbers, ascending, of the rows of a manifest or index table whose ``sets`` hold ``name``."""
    sets = table["sets"].combine_chunks()
    members = pc.equal(pc.list_flatten(sets), name)
    return np.unique(pc.list_parent_indices(sets).filter(members).to_numpy())


def _metadata(metadata: dict[str, Any], spec: FeatureSpec) -> dict[bytes, bytes]:
    metadata |= {"schema": spec.schema, "key": spec.key, "spec": json.loads(spec.to_json())}
    return {_METADATA_KEY: json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode()}


def _read(
    path: Path, schema: pa.Schema, columns: Sequence[str] | None, *, what: str, remedy: str
) -> tuple[pa.Table, dict[str, Any], FeatureSpec]:
    table = read_parquet(path, what=what, remedy=remedy, checked=True, columns=columns)
    text = (table.schema.metadata or {}).get(_METADATA_KEY)
    if text is None:
        raise DataError(f"{path} is no {what} of ltdpipe: its metadata is missing; {remedy}")
    try:
        metadata: dict[str, Any] = json.loads(text)
        if metadata["schema"] != SCHEMA_VERSION:
            raise DataError(
                f"{what} {path} has schema version {metadata['schema']}, this ltdpipe reads {SCHEMA_VERSION}; {remedy}"
            )
        spec = FeatureSpec.from_json(json.dumps(metadata["spec"]), f"{what} {path}")
        shards = metadata["shards"] if what == "index" else [metadata["shard"]]
        metadata["shards"] = tuple(ShardRecord(**shard) for shard in shards)
        stated = metadata["key"]
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{what} {path} is damaged: its metadata cannot be read ({error!r}); {remedy}") from error
    if not table.schema.equals(schema if columns is None else pa.schema(map(schema.field, columns))):
        raise DataError(f"{what} {path} is damaged or of another version: its columns are not those expected; {remedy}")
    if spec.key != stated:
        raise DataError(f"{what} {path} states the key {stated}, but its settings give {spec.key}; {remedy}")
    return table, metadata, spec
