"""CSV whose text cells stay text: names of files, sets and heads are data, also when a spreadsheet opens the file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Cell = str | int | float | None

# A spreadsheet takes a cell that starts so for a formula (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return CSV with one header line, Unix line ends, numbers in full precision and None as an empty cell.

    Text that a spreadsheet would run as a formula gets a ``'`` in front; numbers never do.
    """
    return "".join(map(csv_line, (header, *rows)))


def csv_line(cells: Iterable[Cell]) -> str:
    """Return one line of such CSV."""
    line = io.StringIO()
    texts = ("" if cell is None else escaped(cell) if isinstance(cell, str) else repr(cell) for cell in cells)
    csv.writer(line).writerow(texts)  # it quotes what holds a part of its line end, \r\n
    return line.getvalue().removesuffix("\r\n") + "\n"


def escaped(text: str) -> str:
    """Return text that no spreadsheet runs as a formula; :func:`unescaped` gives it back."""
    return f"'{text}" if _starts_as_formula(text) else text


def unescaped(text: str) -> str:
    """Return the text that :func:`escaped` was given."""
    return text[1:] if text.startswith("'") and _starts_as_formula(text) else text


def _starts_as_formula(text: str) -> bool:
    return text.lstrip("'").startswith(_FORMULA_STARTS)  # behind any ', so that the way back is exact
