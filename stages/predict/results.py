"""What is said of one image, and the result files: CSV, JSON lines and Parquet, written as the results come.

A row of text is handed to the system at once, so a killed run leaves whole rows and at most one torn line, which is cut
off when the run goes on. A Parquet file cannot be appended to: it is there when the run is complete.
"""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.atomic import atomic_path, explained
from storage.csv_text import csv_line, unescaped
from storage.errors import DataError, SettingError
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

COLUMNS = ("path", "status", "verdict", "probability", "synthetic_above", "logit", "error", "detector")
CHECK_COLUMNS = ("spread", "flipped")
FORMATS = ("csv", "jsonl", "parquet")
_NUMBERS = ("probability", "synthetic_above", "logit", "spread")
_MAX_LINE = 1 << 20
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
        detector: which bundle, and with which options.
        spread: greatest minus least probability over the views of the check; None without it.
        flipped: views of the check in which the verdict is the opposite one.
    """

    path: str | None = None
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


def format_of(out: Path) -> str:
    """Return the format of a result file by its name: one of ``FORMATS``.

    Raises:
        SettingError: the name has another extension.
    """
    suffix = out.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise SettingError(f"{out}: expected a name that ends in {known}, found {out.suffix or 'no extension'!r}")
    return suffix


class TextWriter:
    """Writes each result as a line at once.

    Args:
        stream: where they go.
        kind: "csv" or "jsonl".
        check: whether they have the columns of the stability check.
        header: whether CSV begins with the names of the columns.

    Attributes:
        rows: how many were written.
    """

    def __init__(self, stream: IO[str], kind: str, *, check: bool, header: bool = True) -> None:
        self._stream, self._check, self._is_csv = stream, check, kind == "csv"
        self.rows = 0
        if self._is_csv and header:
            stream.write(csv_line(columns(check=check)))

    def write(self, prediction: Prediction) -> None:
        """Write one result."""
        self.rows += 1
        row = prediction.row(check=self._check)
        self._stream.write(csv_line(row.values()) if self._is_csv else json.dumps(row, ensure_ascii=False) + "\n")
        self._stream.flush()


class TableWriter:
    """Writes each result as a line for a person; ``synthetic_above`` stands in the heading."""

    def __init__(self, stream: IO[str], synthetic_above: float) -> None:
        self._stream = stream
        self._heading = f"{'verdict':<9}  {'p(synthetic)':>12}  path  (synthetic above p = {synthetic_above:.4f})\n"

    def write(self, prediction: Prediction) -> None:
        """Write one result."""
        probability = "" if prediction.probability is None else f"{prediction.probability:.4f}"
        reason = f"  ({prediction.error})" if prediction.error else ""
        flips = f"  (flips under {prediction.flipped})" if prediction.flipped else ""
        line = printable(f"{prediction.path or ''}{reason}{flips}")
        self._stream.write(f"{self._heading}{prediction.verdict or 'failed':<9}  {probability:>12}  {line}\n")
        self._stream.flush()
        self._heading = ""


class ParquetWriter:
    """Writes results to a Parquet file, which is whole when it is closed."""

    def __init__(self, path: Path, *, check: bool) -> None:
        self._check, self._rows = check, list[dict[str, Any]]()
        names = columns(check=check)
        self._schema = pa.schema([(name, pa.float64() if name in _NUMBERS else pa.string()) for name in names])
        self._file = pq.ParquetWriter(path, self._schema, write_page_checksum=True)

    def write(self, prediction: Prediction) -> None:
        """Write one result."""
        self._rows.append(prediction.row(check=self._check))
        if len(self._rows) == _PARQUET_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left and the end of the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


@contextmanager
def open_results(
    out: Path, *, check: bool, detector: str, resume: bool
) -> Iterator[tuple[TextWriter | ParquetWriter, Mapping[str, str]]]:
    """Open a result file; it is complete when the block ends well.

    Args:
        out: its name tells its format.
        check: whether it has the columns of the stability check.
        detector: what made its rows, as they state it.
        resume: continue what a stopped run left.

    Yields:
        The writer, and path -> status of the rows that are there already.

    Raises:
        SettingError: the file exists and ``resume`` is not given, or it is given for a Parquet file.
        DataError: what is there is no result file of this format, or of another detector.
    """
    is_parquet = format_of(out) == "parquet"
    if resume and is_parquet:
        raise SettingError(f"{out}: a Parquet file cannot be resumed; name a .csv or .jsonl file")
    if out.exists() and not resume:
        raise SettingError(f"{out} exists; continue it with --resume {out}, name another file, or delete it")
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if is_parquet:
            with atomic_path(out) as partial, closing(ParquetWriter(partial, check=check)) as rows:
                yield rows, {}
            return
        is_new = not out.exists()
        there = {} if is_new else _written(out, check=check, detector=detector)
        with out.open("a", encoding="utf-8", newline="") as stream:
            writer = TextWriter(stream, format_of(out), check=check, header=out.stat().st_size == 0)
            try:
                yield writer, there
            except BaseException:
                if is_new and not writer.rows:
                    out.unlink()  # nothing is in it that a run could resume
                raise


def _written(out: Path, *, check: bool, detector: str) -> dict[str, str]:
    """Return path -> status of the whole rows of a stopped run, and cut the file after the last one."""
    if not out.stat().st_size:
        return {}
    statuses = {}
    for number, row in enumerate(read_rows(out, check=check, torn=True), 1):
        if row["detector"] != detector:
            raise DataError(
                f"{out}: row {number} was made by detector {printable(str(row['detector']))}, this is {detector}; "
                "resume with the same bundle and options, or name another file"
            )
        statuses[str(row["path"])] = str(row["status"])
    with out.open("r+b") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _MAX_LINE))
        tail = file.read()
        if b"\n" not in tail:  # no value of ours holds a line break, and none is so long
            raise DataError(f"{out} holds no whole line, so it is no result file; name another file, or delete it")
        file.truncate(size - len(tail) + tail.rindex(b"\n") + 1)
    return statuses


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
            pieces = iter(lambda: stream.readline(_MAX_LINE), "")  # a foreign file may be one line of any length
            whole = (line for line in pieces if line.endswith("\n") or not torn)
            if format_of(path) == "csv":
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
