"""Parquet files of ours: atomic, and with a hash of the whole file inside, so that a damaged one is never misread.

The hash stands in the key-value metadata, where other programs pass over it. It is taken over the file with the place
of the hash itself filled by dashes.

Arrow's threads may let go of what they read after the read has returned. If that is a Python object and the interpreter
is ending just then, the process aborts. So whole files are read into Arrow's own memory, and Python's file objects
(:mod:`storage.archives`) without threads.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic import atomic_path
from storage.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_MARK = b"ltdpipe-file-sha256:"
_BLANK = b"-" * 64
# Columns whose values hardly repeat: a dictionary of them costs time and room and saves nothing.
_UNIQUE = frozenset({"path", "sha256", "size_bytes", "mtime_ns", "row"})


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table with its metadata atomically; the same table gives the same bytes."""
    metadata = {**(table.schema.metadata or {}), b"checksum": _MARK + _BLANK}
    repeating = [name for name in table.column_names if name not in _UNIQUE]
    buffer = pa.BufferOutputStream()
    # without store_schema=False the metadata would stand in the file twice, and the second hash would never fit
    with pq.ParquetWriter(buffer, table.schema, use_dictionary=repeating, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    content = memoryview(buffer.getvalue())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    at = footer + bytes(content[footer:]).rindex(_MARK) + len(_MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(content[:at])
        file.write(digest)
        file.write(content[at + len(digest) :])


def read_parquet(path: Path, *, what: str, remedy: str, checked: bool = False) -> pa.Table:
    """Read a Parquet file; its strings come with offsets of 64 bits, so that a column may have more than 2 GiB.

    Args:
        path: the file.
        what: what it is called in messages.
        remedy: what a message tells the user to do about a missing or damaged file.
        checked: refuse a file without a hash inside; a file with one is always checked.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with pa.OSFile(os.fsencode(path)) as file:
            content = file.read_buffer()
        fault = _fault(memoryview(content), checked)
        if fault is None:
            return _with_large_strings(pq.ParquetFile(pa.BufferReader(content)).read())
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} does not exist; {remedy}") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        fault = next(iter(str(error).splitlines()), type(error).__name__)
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


def _fault(view: memoryview, checked: bool) -> str | None:
    """Say what is wrong with a file's bytes; None when nothing is known to be."""
    at = max((found.end() for found in re.finditer(_MARK, view)), default=None)  # copies nothing
    if at is None:
        return "it is damaged, or was not written by this version of ltdpipe" if checked else None
    digest = hashlib.sha256(view[:at])
    digest.update(_BLANK)
    digest.update(view[at + len(_BLANK) :])
    same = digest.hexdigest().encode() == view[at : at + len(_BLANK)]
    return None if same else "it is damaged: its content does not have the hash it states"
