"""Result files: CSV, JSON lines and Parquet, written as the results come, and what a stopped run left of them.

A row is flushed with its batch, so a killed run leaves whole rows and at most one torn line, which is cut off when the
run goes on. A Parquet file cannot be appended to: its rows are kept as JSON lines beside it until the run is complete.
"""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from stages.predict.prediction import columns
from storage.atomic import atomic_path, explained
from storage.errors import DataError, SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stages.predict.prediction import Prediction

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
_MOST_LINE = 1 << 20
_PARQUET_ROWS = 8192
_NUMBERS = ("probability", "logit", "spread")


def format_of(out: Path) -> str:
    """Return the form of a result file by its name.

    Raises:
        SettingError: the name has another extension.
    """
    if out.suffix.lower() not in FORMATS:
        raise SettingError(
            f"{out}: expected a name that ends in {', '.join(FORMATS)}, found {out.suffix or 'no extension'!r}"
        )
    return FORMATS[out.suffix.lower()]


def journal_of(out: Path) -> Path:
    """Return where rows go as they come: the file itself, or what becomes a Parquet file at the end."""
    return out.with_name(f"{out.name}.rows.jsonl") if format_of(out) == "parquet" else out


class RowWriter:
    """Writes results as text lines to a stream."""

    def __init__(self, stream: IO[str], form: str, *, check: bool) -> None:
        self._stream, self._form, self._check = stream, form, check

    def header(self) -> None:
        """Write the names of the columns, where the form has such a line."""
        if self._form == "csv":
            self._stream.write(_csv_line(columns(check=self._check)))

    def write(self, prediction: Prediction) -> None:
        """Write one result."""
        row = prediction.row(check=self._check)
        if self._form == "csv":
            self._stream.write(_csv_line(["" if value is None else value for value in row.values()]))
        else:
            self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        """Hand all rows to the system."""
        self._stream.flush()


@contextmanager
def open_rows(out: Path, *, check: bool, resume: bool) -> Iterator[tuple[RowWriter, Iterator[dict[str, Any]]]]:
    """Open a result file; it is complete when the block ends well.

    Args:
        out: its name tells its form.
        check: whether it has the columns of the stability check.
        resume: go on with what a stopped run left.

    Yields:
        The writer, and the rows that are there already; take all of these before the first is written.

    Raises:
        SettingError: the file exists and is not to be gone on with.
        DataError: what is there is no result file of this form.
    """
    form, journal = format_of(out), journal_of(out)
    there = [path for path in dict.fromkeys((out, journal)) if path.exists()]
    if there and not resume:
        raise SettingError(f"{there[0]} exists; go on with it by --resume {out}, name another file, or delete it")
    if form == "parquet" and out.exists():
        raise SettingError(f"{out} is complete: nothing is left to be resumed")
    text = "csv" if form == "csv" else "jsonl"
    with explained(journal):
        journal.parent.mkdir(parents=True, exist_ok=True)
        fresh = not journal.exists() or journal.stat().st_size == 0
        if not fresh:
            _cut_torn_line(journal)
        with journal.open("a", encoding="utf-8", newline="") as stream:
            writer = RowWriter(stream, text, check=check)
            if fresh:
                writer.header()
            yield writer, iter(()) if fresh else read_rows(journal, text, check=check)
        if form == "parquet":
            _to_parquet(journal, out, check=check)
            journal.unlink()


def read_rows(path: Path, form: str, *, check: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or JSON lines file that this module wrote, one at a time.

    Raises:
        DataError: it has other columns, or a line is none of ours.
    """
    names = columns(check=check)
    with path.open(encoding="utf-8", newline="") as stream:
        if form == "csv":
            lines = csv.reader(_limited(stream, path))
            header = next(lines, [])
            if tuple(header) != names:
                raise DataError(
                    f"{path} has the columns {', '.join(header)[:200]}, expected {', '.join(names)}; name another file"
                )
            for values in lines:
                yield _row(path, dict(zip(names, values, strict=False)) if len(values) == len(names) else None)
        else:
            for line in _limited(stream, path):
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError):
                    found = None
                yield _row(path, found if isinstance(found, dict) and tuple(found) == names else None)


def _row(path: Path, row: dict[str, Any] | None) -> dict[str, Any]:
    try:
        if row is None:
            raise ValueError
        numbers = {name: _number(row[name]) for name in _NUMBERS if name in row}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} holds a line that is no result of `ltdpipe predict` with these options") from error
    for name, value in row.items():
        row[name] = numbers.get(name, None if value == "" and name != "flipped" else value)
    return row


def _number(value: Any) -> float | None:
    if value in {None, ""}:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _limited(stream: IO[str], path: Path) -> Iterator[str]:
    while line := stream.readline(_MOST_LINE):
        if len(line) == _MOST_LINE:
            raise DataError(f"{path} holds a line of more than {_MOST_LINE} characters, so it is no result file")
        yield line


def _csv_line(values: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _cut_torn_line(path: Path) -> None:
    """Cut what a killed run wrote of its last line; no value of ours holds a line break."""
    with path.open("r+b") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _MOST_LINE))
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(size - (len(tail) - (tail.rfind(b"\n") + 1)))


def _to_parquet(journal: Path, out: Path, *, check: bool) -> None:
    import pyarrow as pa  # noqa: PLC0415 - only this form needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    kinds = [pa.field(name, pa.float64() if name in _NUMBERS else pa.string()) for name in columns(check=check)]
    schema = pa.schema(kinds)
    with atomic_path(out) as partial, pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer:
        rows: list[dict[str, Any]] = []
        for row in read_rows(journal, "jsonl", check=check):
            rows.append(row)
            if len(rows) == _PARQUET_ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
