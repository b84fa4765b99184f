"""One table, three ways to paste it: Markdown, CSV and LaTeX (booktabs).

Markdown and LaTeX are for reading: rounded, the best value of a column bold and the second best underlined. CSV is
for computing: full precision, undefined values empty. Names are escaped in every format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.csv_text import csv_text
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from stages.measure.frame import Mean
    from storage.csv_text import Cell as PlainCell


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\char34{}",  # \textquotedbl is not in every encoding
        "±": r"$\pm$",
        "[": "{[}",
        "]": "{]}",
        **{char: f"\\{char}" for char in "{}&%$#_"},
    }
)


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
        """What a page shows beside the number: spread, interval, and how many sets a mean covers."""
        if self.value is None:
            return []
        interval = " to ".join(map(self._rounded, self.interval or ()))
        partial = self.covered is not None and self.covered[0] < self.covered[1]
        covered = "{} of {} sets".format(*self.covered or ()) if partial else ""
        return [part for part in (self.spread, interval, covered) if part]

    def _rounded(self, number: float, sign: str = "") -> str:
        return f"{number * self.scale:{sign}.{self.digits}f}"


Cell = str | int | float | Value | None
Rows = list["Sequence[Cell]"]


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

        A single value is not marked, and none where means cover different numbers of sets.
        """
        marks: dict[tuple[int, int], str] = {}
        for column in self.ranked:
            cells = {row: cells[column] for row, cells in enumerate(block.rows)}
            values = {row: cell for row, cell in cells.items() if isinstance(cell, Value) and cell.value is not None}
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
    return printable(" ".join(text.split())).translate(_LATEX).replace("--", "-{}-")


def to_csv(table: Table) -> str:
    """Return the table as CSV, the titles of the blocks in a column of their own."""
    named = [table.block_name] if table.block_name else []
    rows: list[list[PlainCell]] = [
        [*(block.title for _ in named), *(cell.value if isinstance(cell, Value) else cell for cell in row)]
        for block in table.blocks
        for row in block.rows
    ]
    return csv_text([*named, *table.header], rows)


def to_markdown(table: Table) -> str:
    """Return the table as Markdown, a heading a block."""
    parts = [f"# {markdown(table.title)}"]
    rule = ["---" if column < table.text_columns else "---:" for column in range(len(table.header))]
    styles = {"best": "**{}**", "second": "<ins>{}</ins>"}
    for block in table.blocks:
        parts += [f"## {markdown(block.title)}"] if block.title else []
        lines = [[*map(markdown, table.header)], rule, *_texts(table, block, markdown, styles, " {}")]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [f"- {markdown(note)}" for note in table.notes]
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX tabular for the package booktabs (and graphicx, to fit the line when it is wide)."""
    width = len(table.header)
    cells = [row for block in table.blocks for row in _texts(table, block, str, {}, " {}")]
    widths = [max(map(len, column)) for column in zip(table.header, *cells, strict=True)]
    # a line of LaTeX's article has 345 pt: about 5 pt a character and 12 a gap
    wide = 5 * sum(widths) + 12 * width > 345
    lines = [f"% {latex(table.title)}; needs \\usepackage{{booktabs{',graphicx' if wide else ''}}}"]
    lines += [r"\resizebox{\linewidth}{!}{"] if wide else []
    lines += [f"\\begin{{tabular}}{{{'l' * table.text_columns}{'r' * (width - table.text_columns)}}}", r"\toprule"]
    lines += [f"{' & '.join(map(latex, table.header))} \\\\"]
    styles = {"best": "\\textbf{{{}}}", "second": "\\underline{{{}}}"}
    for block in table.blocks:
        lines.append(r"\midrule")
        if block.title and len(table.blocks) > 1:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{latex(block.title)}}}}} \\\\")
        lines += [f"{' & '.join(row)} \\\\" for row in _texts(table, block, latex, styles, " {{\\scriptsize {}}}")]
    lines += [r"\bottomrule", f"\\end{{tabular}}{'}' if wide else ''}"]
    lines += [f"% {latex(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


WRITERS: Mapping[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def _texts(
    table: Table, block: Block, escape: Callable[[str], str], styles: Mapping[str, str], small: str
) -> Iterator[list[str]]:
    """Yield the rows of a block as escaped texts: marked values in their style, spreads in the small one."""
    marks = table.marks(block) if styles else {}

    def text(cell: Cell, mark: str | None) -> str:
        if isinstance(cell, Value):
            spread = small.format(escape(cell.spread)) if cell.spread else ""
            return styles.get(mark or "", "{}").format(escape(cell.text)) + spread
        if isinstance(cell, float):
            return f"{cell:.4g}"
        return "" if cell is None else escape(str(cell))

    for row, cells in enumerate(block.rows):
        yield [text(cell, marks.get((row, column))) for column, cell in enumerate(cells)]
