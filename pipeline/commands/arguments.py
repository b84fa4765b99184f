"""What several commands share: options, checks of them, and printing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from storage import names
from storage.errors import LtdpipeError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PATH = click.Path(path_type=Path)
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


def names_in(section: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Let a shell complete an option's value with the names in a section of params.yaml."""

    def complete(_context: click.Context, _option: click.Parameter, begun: str) -> list[str]:
        from pipeline.workspace import project_params

        try:
            return [name for name in getattr(project_params(), section) if name.startswith(begun)]
        except LtdpipeError:
            return []

    return complete


corpus_option = click.option(
    "--corpus", metavar="NAME", shell_complete=names_in("corpora"), help="A corpus of params.yaml."
)
trained_on_option = click.option(
    "--trained-on",
    metavar="NAME",
    shell_complete=names_in("train_on"),
    help="The corpus a head is trained on; not needed where params.yaml names one only.",
)
weights_option = click.option(
    "--weights", default="default", show_default=True, help="Backbone: default, random:SEED, or a local file."
)
threads_option = click.option("--threads", type=click.IntRange(min=1), help="CPU threads of training.")


def class_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --real, --synthetic and --leave-out."""
    for name, what in (("leave-out", "is not listed"), ("synthetic", "is synthetic"), ("real", "is real")):
        about = f"A folder of FOLDER, or a label, that {what}; repeatable."
        command = click.option(f"--{name}", multiple=True, metavar="PATTERN", help=about)(command)
    return command


def _bytes(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    from dask.utils import parse_bytes

    try:
        size = None if value is None else parse_bytes(value)
    except ValueError:
        size = -1
    if size is not None and size < 0:
        raise click.BadParameter(f"{value!r} is no size; write it as 2GB or 500MB")
    return size


memory_option = click.option(
    "--memory",
    metavar="SIZE",
    callback=_bytes,
    help="Features to hold in memory, as 2GB; what does not fit is read from disk, by training in windows.",
)


def comma_separated(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    """Split an option's value, as ``clean,jpeg:70``."""
    return None if value is None else [part.strip() for part in value.split(",")]


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print lines whose names may hold anything, with what a terminal would obey spelled out."""
    click.echo("\n".join(map(names.printable, text.split("\n"))), err=err, nl=nl)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, title: str, caption: str = "") -> None:
    """Print a table; names (set, metric, corpus, head) are broken where they are long, numbers never.

    An empty row is a rule.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # no frame around it, so that it fits a terminal of 80 columns; nothing in a cell is taken for markup
    table = Table(caption=Text(caption), show_edge=False)
    table.pad_edge = False
    cells = [[Text(names.printable(cell)) for cell in row] for row in rows]
    for at, name in enumerate(header):
        number = at > 0 and name != "metric"
        width = max((len(row[at]) for row in cells if row and number), default=None)
        table.add_column(
            Text(names.printable(name)), justify="right" if number else "left", min_width=width, overflow="fold"
        )
    for row in cells:
        if row:
            table.add_row(*row)
        else:
            table.add_section()
    console = Console()
    console.print(Text(names.printable(title), style="table.title"))  # a title of the table is as narrow as the table
    console.print(table)


def refuse_both(folder: Path, corpus: str | None) -> None:
    """Refuse a corpus of params.yaml beside a folder."""
    if corpus is not None:
        raise SettingError(f"both the folder {folder} and --corpus {corpus} were given, expected one; leave one out")


def refuse_overwriting(out: Path | None, *inputs: Path | None) -> None:
    """Refuse an output that is one of the inputs, or lies in a folder of them."""
    written = set() if out is None else {out.resolve(), *out.resolve().parents}
    for given in inputs:
        if given is not None and given.exists() and given.resolve() in written:
            raise SettingError(f"the output {out} would overwrite the input {given}; name another file")
