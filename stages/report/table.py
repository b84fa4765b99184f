"""One table, four ways to paste it: Markdown, CSV, LaTeX (booktabs) and JSON.

Markdown and LaTeX are for reading: rounded, the best value of a column bold and the second best underlined. CSV and
JSON are for computing: full precision, undefined values empty or null. Names are data: nothing obeys them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.csv_text import csv_text
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from stages.measure.frame import Mean
    from storage.csv_text import Cell as PlainCell


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",  # \textquotedbl is not in every encoding
    "±": r"$\pm$",
    "[": "{[}",
    "]": "{]}",
}


@dataclass(frozen=True)
class Value:
    """A number with its spread.

    Attributes:
        value: None where it is undefined.
        std: standard deviation over seeds, where there is one.
        scale: what the number is multiplied by to be read: 100 for percent.
        digits: decimals after that.
        signed: whether a plus is printed.
        interval: its 95 % interval; shown in pages only.
        covered: (count, total) of the sets that a mean covers; shown in pages, where it does not cover all.
        lower_is_better: as for errors.
    """

    value: float | None
    std: float | None = None
    scale: float = 100.0
    digits: int = 2
    signed: bool = False
    interval: tuple[float, float] | None = None
    covered: tuple[int, int] | None = None
    lower_is_better: bool = False

    @classmethod
    def of(cls, mean: Mean) -> Value:
        """Take a mean, in percent, with its spread."""
        return cls(mean.value, mean.std)

    @property
    def text(self) -> str:
        """The rounded number alone."""
        return "undefined" if self.value is None else self._rounded(self.value, "+" if self.signed else "")

    @property
    def spread(self) -> str:
        """The rounded standard deviation, where there is one."""
        return "" if self.value is None or self.std is None else f"± {self._rounded(self.std)}"

    @property
    def parts(self) -> list[str]:
        """What a page shows beside the number."""
        if self.value is None:
            return []
        parts = [self.spread] if self.spread else []
        if self.interval is not None:
            parts.append(" to ".join(map(self._rounded, self.interval)))
        if self.covered is not None and self.covered[0] < self.covered[1]:
            parts.append("{} of {} sets".format(*self.covered))
        return parts

    def _rounded(self, number: float, sign: str = "") -> str:
        return f"{number * self.scale:{sign}.{self.digits}f}"


Cell = str | int | float | Value | None


@dataclass(frozen=True)
class Block:
    """Rows that belong together; the best of a column is looked for among them."""

    title: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Table:
    """A table of named columns.

    Attributes:
        title: what it shows.
        header: names of the columns.
        blocks: its rows.
        text_columns: how many leading columns are text.
        ranked: numbers of the columns whose best and second best values are marked.
        block_name: name of the CSV column that holds the titles of the blocks; empty with a single block.
        notes: sentences below the table.
    """

    title: str
    header: Sequence[str]
    blocks: Sequence[Block]
    text_columns: int = 1
    ranked: Collection[int] = ()
    block_name: str = ""
    notes: Sequence[str] = ()

    @property
    def length(self) -> int:
        """Number of rows."""
        return sum(len(block.rows) for block in self.blocks)

    def marks(self, block: Block) -> dict[tuple[int, int], str]:
        """Return (row, column) -> "best" or "second" of a block, by the numbers as printed.

        None is best alone, or where means cover different numbers of sets.
        """
        marks: dict[tuple[int, int], str] = {}
        for column in self.ranked:
            found = {row: cells[column] for row, cells in enumerate(block.rows)}
            values = {row: cell for row, cell in found.items() if isinstance(cell, Value) and cell.value is not None}
            if len(values) < 2 or len({cell.covered for cell in values.values()}) > 1:
                continue
            printed = {row: float(cell.text) * (-1 if cell.lower_is_better else 1) for row, cell in values.items()}
            for name, value in zip(("best", "second"), sorted(set(printed.values()), reverse=True), strict=False):
                marks |= {(row, column): name for row, number in printed.items() if number == value}
        return marks


def markdown(text: str) -> str:
    """Make text inert in a Markdown table cell: no markup, no HTML, no end of cell or line."""
    escaped = re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", printable(" ".join(text.split())))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex(text: str) -> str:
    """Make text inert in a LaTeX table cell: no command, no end of cell or line, no optional argument."""
    return "".join(_LATEX.get(char, char) for char in printable(" ".join(text.split()))).replace("--", "-{}-")


def to_csv(table: Table) -> str:
    """Return the table as CSV."""
    return csv_text(*_plain(table))


def to_json(table: Table) -> str:
    """Return the table as a JSON object: title, notes, and rows as objects."""
    header, rows = _plain(table)
    names: list[str] = []  # columns of one name are told apart: no value may hide another
    for name in header:
        twins = header[: len(names)].count(name)
        names.append(f"{name} ({twins + 1})" if twins else name)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    content = {"title": table.title, "notes": list(table.notes), "rows": records}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(table: Table) -> str:
    """Return the table as Markdown, a heading a block."""
    parts = [f"# {markdown(table.title)}"]
    rule = ["---" if column < table.text_columns else "---:" for column in range(len(table.header))]
    for block in table.blocks:
        if block.title:
            parts.append(f"## {markdown(block.title)}")
        rows = _marked(table, block, markdown, {"best": "**{}**", "second": "<ins>{}</ins>"}, " {}")
        lines = [[markdown(name) for name in table.header], rule, *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [f"- {markdown(note)}" for note in table.notes]
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX tabular for the package booktabs (and graphicx, to fit the line when it is wide)."""
    width = len(table.header)
    cells = [[_text(cell, str, "{}", " {}") for cell in row] for block in table.blocks for row in block.rows]
    widths = [max(map(len, column)) for column in zip(table.header, *cells, strict=True)]
    # a line of LaTeX's article has 345 pt: about 5 pt a character and 12 a gap
    wide = 5 * sum(widths) + 12 * width > 345
    lines = [f"% {latex(table.title)}; needs \\usepackage{{booktabs{',graphicx' if wide else ''}}}"]
    lines += [r"\resizebox{\linewidth}{!}{"] if wide else []
    lines += [f"\\begin{{tabular}}{{{'l' * table.text_columns}{'r' * (width - table.text_columns)}}}", r"\toprule"]
    lines += [f"{' & '.join(map(latex, table.header))} \\\\"]
    for block in table.blocks:
        lines.append(r"\midrule")
        if block.title and len(table.blocks) > 1:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{latex(block.title)}}}}} \\\\")
        styles = {"best": "\\textbf{{{}}}", "second": "\\underline{{{}}}"}
        rows = _marked(table, block, latex, styles, " {{\\scriptsize {}}}")
        lines += [f"{' & '.join(row)} \\\\" for row in rows]
    lines += [r"\bottomrule", f"\\end{{tabular}}{'}' if wide else ''}"]
    lines += [f"% {latex(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


WRITERS: Mapping[str, Callable[[Table], str]] = {"csv": to_csv, "json": to_json, "md": to_markdown, "tex": to_latex}


def _plain(table: Table) -> tuple[list[str], list[list[PlainCell]]]:
    """Return the header and the rows in full precision, the titles of the blocks in a column of their own."""
    start = [table.block_name] if table.block_name else []
    rows = [
        [*([block.title] if start else []), *(cell.value if isinstance(cell, Value) else cell for cell in row)]
        for block in table.blocks
        for row in block.rows
    ]
    return [*start, *table.header], rows


def _marked(
    table: Table, block: Block, escape: Callable[[str], str], styles: Mapping[str, str], small: str
) -> list[list[str]]:
    marks = table.marks(block)
    return [
        [
            _text(cell, escape, styles.get(marks.get((row, column), ""), "{}"), small)
            for column, cell in enumerate(cells)
        ]
        for row, cells in enumerate(block.rows)
    ]


def _text(cell: Any, escape: Callable[[str], str], style: str, small: str) -> str:
    if isinstance(cell, Value):
        return style.format(escape(cell.text)) + (small.format(escape(cell.spread)) if cell.spread else "")
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return "" if cell is None else escape(str(cell))
