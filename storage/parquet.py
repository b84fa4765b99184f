"""Parquet files of ours: atomic, and with a hash of the whole file inside, so that a damaged one is never misread.

The hash stands in the key-value metadata, where other programs pass over it. It is taken over the file with the place
of the hash itself filled by dashes.

Arrow's threads may let go of what they read after the read has returned. If that is a Python object and the interpreter
is ending just then, the process aborts. So files are read by Arrow itself, and Python's file objects
(:mod:`storage.archives`) without threads.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic import atomic_path
from storage.errors import DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_MARK = b"ltdpipe-file-sha256:"
_BLANK = b"-" * 64
_BYTES_AT_ONCE = 1 << 20  # that are hashed
# Columns whose values hardly repeat: a dictionary of them costs time and room and saves nothing.
_UNIQUE = frozenset({"path", "sha256", "size_bytes", "mtime_ns", "row"})


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table with its metadata atomically; the same table gives the same bytes."""
    write_parts([table], path, table.schema, lambda: table.schema.metadata or {})


def write_parts(
    parts: Iterable[pa.Table], path: Path, schema: pa.Schema, metadata: Callable[[], Mapping[bytes, bytes]]
) -> None:
    """Write a table that comes in parts, as :func:`write_parquet` does; ``metadata`` is asked for after the last."""
    repeating = [name for name in schema.names if name not in _UNIQUE]
    with atomic_path(path) as partial:
        # without store_schema=False the metadata would stand in the file twice, and the second hash would never fit
        with (
            pa.OSFile(os.fsencode(partial), "wb") as sink,
            pq.ParquetWriter(sink, schema, use_dictionary=repeating, store_schema=False) as writer,
        ):
            for part in parts:
                writer.write_table(part)
            writer.add_key_value_metadata({**metadata(), b"checksum": _MARK + _BLANK})
        with pa.OSFile(os.fsencode(partial)) as file:
            at = _place_of_hash(file)
            digest = _hash(file, at)
        with partial.open("r+b") as file:
            file.seek(at)
            file.write(digest)


def read_parquet(
    path: Path, *, what: str, remedy: str, checked: bool = False, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a Parquet file; its strings come with offsets of 64 bits, so that a column may have more than 2 GiB.

    Args:
        path: the file.
        what: what it is called in messages.
        remedy: what a message tells the user to do about a missing or damaged file.
        checked: refuse a file without a hash inside; a file with one is always checked.
        columns: the ones to read; None for all.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with pa.OSFile(os.fsencode(path)) as file:
            fault = _fault(file, checked)
            if fault is None:
                is_large = file.size() > _BYTES_AT_ONCE  # threads cost more than they save in small files
                return _with_large_strings(pq.ParquetFile(file).read(columns, use_threads=is_large))
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} does not exist; {remedy}") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        fault = first_line(error)
    raise DataError(f"{what} {path} cannot be read ({fault}); {remedy}")


def _with_large_strings(table: pa.Table) -> pa.Table:
    """Return a table with ``large_string`` where it has ``string``; Parquet files know one type of both."""
    schema = table.schema
    for at, field in enumerate(schema):
        if field.type == pa.string():
            schema = schema.set(at, field.with_type(pa.large_string()))
        elif field.type == pa.list_(pa.string()):
            schema = schema.set(at, field.with_type(pa.list_(pa.large_string())))
    return table.cast(schema)


def _fault(file: pa.NativeFile, checked: bool) -> str | None:
    """Say what is wrong with a file's bytes; None when nothing is known to be."""
    at = _place_of_hash(file)
    if at < 0:
        return "it is damaged, or was not written by this version of ltdpipe" if checked else None
    file.seek(at)
    same = file.read(len(_BLANK)) == _hash(file, at)
    return None if same else "it is damaged: its content does not have the hash it states"


def _place_of_hash(file: pa.NativeFile) -> int:
    """Return where in a Parquet file the hash stands, in the footer, whose length comes last; -1 where it has none."""
    size = file.size()
    file.seek(max(size - 8, 0))
    footer = max(size - 8 - int.from_bytes(file.read(4), "little"), 0)
    file.seek(footer)
    at: int = file.read().rfind(_MARK)
    return at if at < 0 else footer + at + len(_MARK)


def _hash(file: pa.NativeFile, at: int) -> bytes:
    """Return the hex sha256 of a file with dashes in the place of its hash."""
    digest = hashlib.sha256()
    for start, stop in ((0, at), (at + len(_BLANK), file.size())):
        file.seek(start)
        for begin in range(start, stop, _BYTES_AT_ONCE):
            digest.update(file.read(min(_BYTES_AT_ONCE, stop - begin)))
        if start == 0:
            digest.update(_BLANK)
    return digest.hexdigest().encode()
