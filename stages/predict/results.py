"""What is said of one image, and the result files: CSV, JSON lines and Parquet, written as the results come.

A row is handed to the system at once, so a killed run leaves whole rows and at most one torn line, which is cut off
when the run goes on. A Parquet file cannot be appended to: its rows are kept as JSON lines beside it until the end.
"""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

from storage.atomic import atomic_path, explained
from storage.csv_text import csv_line, unescaped
from storage.errors import DataError, SettingError
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = ("path", "status", "verdict", "probability", "synthetic_above", "logit", "error", "detector")
CHECK_COLUMNS = ("spread", "flipped")
FORMS = ("csv", "jsonl", "parquet")
_NUMBERS = ("probability", "synthetic_above", "logit", "spread")
_MOST_TORN = 1 << 20  # bytes of a line that a killed run did not finish
_PARQUET_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One image's result.

    Attributes:
        path: the image, as it was given or found; None for one that came from memory.
        status: "ok" or "failed".
        verdict: "real", "synthetic" or "unsure"; None where the image could not be read.
        probability: that it is synthetic, where both classes are equally likely (``Calibration.scaling``).
        synthetic_above: the probability above which the verdict is "synthetic"; not 0.5 where the threshold was set to
            keep a false-positive rate.
        logit: of the head, not calibrated; its sigmoid is the score that ``ltdpipe evaluate`` stores.
        error: why it could not be read, or which view of the check could not be made of it.
        detector: which bundle, and how it looked.
        spread: greatest minus least probability over the views of the check; None without it.
        flipped: views of the check in which the verdict is the opposite one.
    """

    path: str | None
    status: str
    verdict: str | None = None
    probability: float | None = None
    synthetic_above: float | None = None
    logit: float | None = None
    error: str | None = None
    detector: str = ""
    spread: float | None = None
    flipped: str | None = None

    def row(self, *, check: bool) -> dict[str, Any]:
        """Return its values by column."""
        values = asdict(self)
        if self.error is not None:
            values["error"] = printable(self.error)
        return {name: values[name] for name in columns(check=check)}


def columns(*, check: bool) -> tuple[str, ...]:
    """Return the names of the columns, with those of the stability check where it is made."""
    return (*COLUMNS, *CHECK_COLUMNS) if check else COLUMNS


def form_of(out: Path) -> str:
    """Return the form of a result file by its name: one of ``FORMS``.

    Raises:
        SettingError: the name has another extension.
    """
    form = out.suffix.lower().removeprefix(".")
    if form not in FORMS:
        known = ", ".join(f".{name}" for name in FORMS)
        raise SettingError(f"{out}: expected a name that ends in {known}, found {out.suffix or 'no extension'!r}")
    return form


def journal_of(out: Path) -> Path:
    """Return where rows go as they come: the file itself, or what becomes a Parquet file at the end."""
    return out.with_name(f"{out.name}.rows.jsonl") if form_of(out) == "parquet" else out


class RowWriter:
    """Writes results as text lines to a stream.

    Args:
        stream: where they go.
        form: "csv" or "jsonl".
        check: whether they have the columns of the stability check.
        goes_on: whether the stream holds rows already; else CSV begins with the names of the columns.

    Attributes:
        rows: how many were written.
    """

    def __init__(self, stream: IO[str], form: str, *, check: bool, goes_on: bool = False) -> None:
        self._stream, self._check, self._is_csv = stream, check, form == "csv"
        self.rows = 0
        if self._is_csv and not goes_on:
            stream.write(csv_line(columns(check=check)))

    def write(self, prediction: Prediction) -> None:
        """Write one result, at once."""
        self.rows += 1
        row = prediction.row(check=self._check)
        self._stream.write(csv_line(row.values()) if self._is_csv else json.dumps(row, ensure_ascii=False) + "\n")
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
    journal = journal_of(out)
    there = next((path for path in (out, journal) if path.exists()), None)
    if there is not None and not resume:
        raise SettingError(f"{there} exists; go on with it by --resume {out}, name another file, or delete it")
    if journal != out and out.exists():
        raise SettingError(f"{out} is complete: nothing is left to be resumed")
    with explained(journal):
        journal.parent.mkdir(parents=True, exist_ok=True)
        is_new = not journal.exists()
        with journal.open("a", encoding="utf-8", newline="") as stream:
            goes_on = stream.tell() > 0
            done = _kept(journal, check=check) if goes_on else iter(())
            writer = RowWriter(stream, form_of(journal), check=check, goes_on=goes_on)
            try:
                yield writer, done
            except BaseException:
                if is_new and not writer.rows:
                    journal.unlink()  # nothing is in it that a run could go on with
                raise
        if journal != out:
            _to_parquet(journal, out, check=check)
            journal.unlink()


def read_rows(path: Path, *, check: bool, torn: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or JSON lines file that this module wrote, one at a time.

    Args:
        path: the file.
        check: whether it has the columns of the stability check.
        torn: pass over a last line without an end, which a killed run left.

    Raises:
        DataError: it has other columns, or a line is none of ours.
    """
    names = columns(check=check)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            pieces = iter(lambda: stream.readline(_MOST_TORN), "")  # a foreign file may be one line of any length
            whole = (line for line in pieces if line.endswith("\n") or not torn)
            if form_of(path) == "csv":
                lines = csv.reader(whole)
                header = next(lines, [])
                if tuple(header) != names:
                    raise DataError(
                        f"{path} has the columns {', '.join(header)[:200]}, expected {', '.join(names)}; name another "
                        "file"
                    )
                for values in lines:
                    yield _typed(dict(zip(names, map(unescaped, values), strict=True)))
            else:
                for line in whole:
                    row = json.loads(line)
                    if tuple(row) != names:
                        raise ValueError(row)
                    yield _typed(row)
    except (csv.Error, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} holds a line that is no result of `ltdpipe predict` with these options") from error


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was written: numbers as such, and None for what CSV left empty."""
    for name, value in row.items():
        if value == "" and name != "flipped":
            row[name] = None
        elif value is not None and name in _NUMBERS:
            row[name] = float(value)
            if not math.isfinite(row[name]):
                raise ValueError(value)
    return row


def _kept(journal: Path, *, check: bool) -> Iterator[dict[str, Any]]:
    """The rows of a stopped run; the file is cut behind the last whole one when all are known to be ours."""
    yield from read_rows(journal, check=check, torn=True)
    with journal.open("r+b") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _MOST_TORN))
        tail = file.read()
        if b"\n" not in tail:  # no value of ours holds a line break, and none is so long
            raise DataError(f"{journal} holds no whole line, so it is no result file; name another file, or delete it")
        file.truncate(size - len(tail) + tail.rindex(b"\n") + 1)


def _to_parquet(journal: Path, out: Path, *, check: bool) -> None:
    import pyarrow as pa  # noqa: PLC0415 - only this form needs it
    import pyarrow.parquet as pq  # noqa: PLC0415

    kinds = [pa.field(name, pa.float64() if name in _NUMBERS else pa.string()) for name in columns(check=check)]
    schema = pa.schema(kinds)
    with atomic_path(out) as partial, pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer:
        rows = read_rows(journal, check=check)
        while group := list(islice(rows, _PARQUET_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
