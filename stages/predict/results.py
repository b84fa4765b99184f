"""What is said of one image, and the result files: CSV and JSON lines, written as the results come.

A row is handed to the system at once, so a killed run leaves whole rows and at most one torn line, which is cut off
when the run is resumed.
"""

from __future__ import annotations

import csv
import json
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from storage.atomic import explained
from storage.csv_text import csv_line, unescaped
from storage.errors import DataError, SettingError
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Write = Callable[["Prediction"], None]

COLUMNS = ("path", "status", "verdict", "probability", "synthetic_above", "logit", "error", "note", "detector")
CHECK_COLUMNS = ("spread", "flipped")
LIKENESS_COLUMNS = ("likeness",)
TILE_COLUMNS = ("tiles", "mean_logit", "hottest")
FAILED = "failed"  # in place of a verdict, in words for people
FORMATS = ("csv", "jsonl", "html")
_NUMBERS = ("probability", "synthetic_above", "logit", "spread", "tiles", "mean_logit", *LIKENESS_COLUMNS)


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
        logit: of the head, not calibrated; its sigmoid is the score that ``ltdpipe evaluate`` stores. Of tiles, the
            maximum.
        error: why it could not be read, or which view of the check could not be made of it.
        note: what makes the verdict less sure, such as an image smaller than the backbone's input.
        detector: which bundle, and with which check.
        spread: greatest minus least probability over the views of the check; None without it.
        flipped: views of the check in which the verdict is the opposite one.
        likeness: share of images like the calibration's that lie as far from it or farther; None where the bundle
            holds none of its images. Where it lies beyond all of them, the verdict is "unsure".
        features: (F,) that the head's last layer read; None where the bundle holds no image to compare them with.
        tile_logits: (left, top) of each tile in pixels -> its logit; empty where the image was read in one picture.
        thumbnail: (128, 128, 3) uint8, the whole image on grey; None where none was asked for.
    """

    path: str | None = None
    status: str
    verdict: str | None = None
    probability: float | None = None
    synthetic_above: float | None = None
    logit: float | None = None
    error: str | None = None
    note: str | None = None
    detector: str = ""
    spread: float | None = None
    flipped: str | None = None
    likeness: float | None = None
    features: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    tile_logits: Mapping[tuple[int, int], float] = field(default_factory=dict, repr=False)
    thumbnail: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def tiles(self) -> int | None:
        """How many tiles the image was read in."""
        return len(self.tile_logits) or None

    @property
    def mean_logit(self) -> float | None:
        """The mean over the tiles."""
        return sum(self.tile_logits.values()) / len(self.tile_logits) if self.tile_logits else None

    @property
    def hottest(self) -> str | None:
        """The upper left corner of the tile with the greatest logit, as ``448,0``."""
        corner = max(self.tile_logits, key=self.tile_logits.__getitem__, default=None)
        return None if corner is None else "{},{}".format(*corner)

    @property
    def remarks(self) -> list[str]:
        """What else there is to say of it, each on one line that no terminal obeys."""
        flips = f"flips under {self.flipped}" if self.flipped else None
        return [printable(remark) for remark in (self.error, flips, self.note) if remark]

    def row(self, names: Sequence[str]) -> dict[str, Any]:
        """Return its values by column."""
        values = {name: getattr(self, name) for name in names}
        return values if self.error is None else values | {"error": printable(self.error)}


def most_suspicious_first(prediction: Prediction) -> tuple[bool, float]:
    """Return what sorts results: by logit from the greatest down, images that could not be read last."""
    return prediction.logit is None, -(prediction.logit or 0.0)


def columns(*, check: bool, likeness: bool = False, tiled: bool = False) -> tuple[str, ...]:
    """Return the names of the columns, with those of the check, the likeness and tiles where they are made."""
    return COLUMNS + CHECK_COLUMNS * check + LIKENESS_COLUMNS * likeness + TILE_COLUMNS * tiled


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


def text_writer(stream: IO[str], kind: str, names: Sequence[str], *, header: bool = True) -> Write:
    """Write each result at once as a line of "csv" or "jsonl"; ``header``: CSV begins with the column names."""
    if kind == "csv" and header:
        stream.write(csv_line(names))

    def write(prediction: Prediction) -> None:
        row = prediction.row(names)
        stream.write(csv_line(row.values()) if kind == "csv" else json.dumps(row, ensure_ascii=False) + "\n")
        stream.flush()

    return write


def table_writer(stream: IO[str], synthetic_above: float) -> Write:
    """Write each result as a line for a person; ``synthetic_above`` stands in the heading."""
    heading = [f"{'verdict':<9}  {'p(synthetic)':>12}  path  (synthetic above p = {synthetic_above:.4f})\n"]

    def write(prediction: Prediction) -> None:
        probability = "" if prediction.probability is None else f"{prediction.probability:.4f}"
        line = printable(prediction.path or "") + "".join(f"  ({remark})" for remark in prediction.remarks)
        first = heading.pop() if heading else ""
        stream.write(f"{first}{prediction.verdict or FAILED:<9}  {probability:>12}  {line}\n")
        stream.flush()

    return write


@contextmanager
def open_results(out: Path, names: Sequence[str], *, detector: str) -> Iterator[tuple[Write, Mapping[str, str]]]:
    """Open a .csv or .jsonl file of results; what a stopped run left in it is continued.

    Args:
        out: a file that :func:`check_out` found good; its name tells its format.
        names: of its columns.
        detector: what made its rows, as they state it.

    Yields:
        What writes a result, and path -> status of the rows that are there already.

    Raises:
        DataError: what is there is no result file of this format, or of another detector.
    """
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        is_new, end = not out.exists(), 0
        there: dict[str, str] = {}
        for row, row_end in () if is_new else read_rows(out, expected=names):
            if row["detector"] != detector:
                raise DataError(
                    f"{out}: row {len(there) + 1} was made by detector {printable(str(row['detector']))}, this is "
                    f"{detector}; resume with the same bundle and options, or name another file"
                )
            there[str(row["path"])], end = str(row["status"]), row_end
        heading = len(csv_line(names)) if format_of(out) == "csv" else 0
        with out.open("a", encoding="utf-8", newline="") as stream:
            stream.truncate(end)
            try:
                yield text_writer(stream, format_of(out), names, header=end == 0), there
            except BaseException:
                if is_new and out.stat().st_size <= heading:
                    out.unlink()  # nothing is in it that a run could resume
                raise


def check_out(out: Path, *, resume: bool) -> None:
    """Check that a result file may be written, or what a stopped run left in it be continued.

    Raises:
        SettingError: it exists and ``resume`` is not given, or it is given for a page.
    """
    is_page = format_of(out) == "html"
    if resume and is_page:
        raise SettingError(f"{out} cannot be resumed, only a .csv or .jsonl file can; name one of those")
    if out.exists() and not resume:
        way_out = "" if is_page else f"continue it with --resume {out}, "
        raise SettingError(f"{out} exists; {way_out}name another file, or delete it")


def read_rows(path: Path, *, expected: Sequence[str] | None = None) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield (row, bytes up to its end) of a .csv or .jsonl file of results; a torn last line is passed over.

    Args:
        path: the file.
        expected: the columns it has to have; None for any.

    Raises:
        DataError: it has other columns, or a line is no result.
    """
    names: Sequence[str] = ()
    end = 0
    try:
        with path.open("rb") as file:
            for line in file:  # no value of ours holds a line break
                if end and not line.endswith(b"\n"):
                    return
                end += len(line)
                if format_of(path) == "jsonl":
                    row = dict(json.loads(line).items())
                    names = tuple(row)
                else:
                    (cells,) = csv.reader([line.decode()], strict=True)
                    row = dict(zip(names, map(unescaped, cells), strict=True)) if names else {}
                    names = names or cells
                if expected is not None and tuple(names) != tuple(expected):
                    raise DataError(
                        f"{path} has the columns {', '.join(names)[:200]}, expected {', '.join(expected)}; resume with "
                        "the same options, or name another file"
                    )
                if row:
                    yield _typed(row), end
    except (csv.Error, AttributeError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} holds a line that is no result of `ltdpipe predict`; name another file") from error


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
