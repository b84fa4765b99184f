"""Parquet files of ours: atomic, with a checksum on every page, so that a damaged one is refused and never misread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic import atomic_path
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Columns whose values hardly repeat: a dictionary of them costs time and room and saves nothing.
_UNIQUE = frozenset({"path", "sha256", "size_bytes", "mtime_ns", "row"})


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table atomically; the same table gives the same bytes."""
    repeating = [name for name in table.column_names if name not in _UNIQUE]
    with atomic_path(path) as partial:
        pq.write_table(table, partial, use_dictionary=repeating, write_page_checksum=True)


def read_parquet(path: Path, *, what: str, remedy: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file of ours.

    Args:
        path: the file.
        what: what it is called in messages.
        remedy: what a message tells the user to do about a missing or damaged file.
        columns: which columns; None for all.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} does not exist; {remedy}") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{what} {path} cannot be read ({_first_line(error)}); {remedy}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
