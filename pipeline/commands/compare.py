"""Two heads or two studies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import PATH, project_params
from storage.errors import SettingError

if TYPE_CHECKING:
    from rich.table import Table as PrintedTable

    from pipeline.params import Params
    from stages.report.table import Table


@click.command()
@click.argument("one")
@click.argument("other")
@click.option("--out", type=PATH, help="Also write the table; its suffix says how: .csv, .json, .md or .tex.")
def compare(one: str, other: str, out: Path | None) -> None:
    """Compare two heads, or two studies, on the same images, set by set, with paired tests.

    ONE and OTHER are heads of params.yaml, as the report calls them, or folders of scores, as `scores` of another
    checkout. Of two folders, heads of one name are compared.
    """
    from rich.console import Console

    from stages.report.compare import run
    from stages.report.table import WRITERS
    from storage.atomic import write_text

    if out is not None and out.suffix.removeprefix(".") not in WRITERS:
        raise SettingError(f"--out {out}: expected a file name that ends in .{', .'.join(WRITERS)}")
    params = project_params() if paths.PARAMS.exists() else None
    first, second = (_scores_of(params, side) for side in (one, other))
    heads_of = {path: head for path, head in (first | second).items() if head is not None}
    order = []
    if params is not None:
        from pipeline.study import set_order

        order = set_order(params)
    table = run(one=list(first), other=list(second), names=(one, other), heads_of=heads_of, set_order=order)
    for printed in _printed(table):
        Console().print(printed)
    if out is not None:
        write_text(out, WRITERS[out.suffix.removeprefix(".")](table))


def _scores_of(params: Params | None, side: str) -> dict[Path, str | None]:
    """Return scores files -> what the study calls their head; None in a folder, where the files have to say it."""
    known: list[str] = []
    if params is not None:
        from pipeline.study import labels, score_files

        known = labels(params)
        if side in known:
            return dict(score_files(params, labels=[side]))
    found = sorted(Path(side).rglob("*.parquet")) if Path(side).is_dir() else []
    if not found:
        heads = ", ".join(known) or "none: there is no params.yaml here"
        raise SettingError(f"{side!r} is neither a head of params.yaml ({heads}) nor a folder with scores")
    return dict.fromkeys(found)


def _printed(table: Table) -> list[PrintedTable]:
    from rich.table import Table as PrintedTable
    from rich.text import Text

    from stages.report.table import Value
    from storage.names import printable

    printed = []
    for block in table.blocks:
        # no frame around it, so that it fits a terminal of 80 columns; a long name is broken, not cut
        layout = PrintedTable(title=Text(printable(block.title)), title_justify="left", show_edge=False, pad_edge=False)
        for name in ("set", "metric"):
            layout.add_column(name, overflow="fold")
        for name in ("first", "second", "difference", "95 % interval", "p (Holm)"):
            layout.add_column(name, justify="right", no_wrap=True)
        for row in block.rows:
            texts = [
                cell.text if isinstance(cell, Value) else f"{cell:.3f}" if isinstance(cell, float) else str(cell)
                for cell in row
            ]
            first, second, difference, low, high, _, p_holm, _ = texts[2:]
            cells = [*texts[:2], first, second, difference, f"{low} to {high}", p_holm]
            layout.add_row(*(Text(printable(cell)) for cell in cells))
        printed.append(layout)
    return printed
