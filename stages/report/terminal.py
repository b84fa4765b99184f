"""The terminal's table of metrics.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stages.report.tables import HEADLINE
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_COLUMNS = 4  # of heads that fit a terminal of 80 columns


def result_table(metrics: Mapping[str, Any], *, title: str = "AP / accuracy in percent") -> Group:
    """Lay out what metrics.json holds for the terminal: a row per set, a column per head, the mean below.

    More heads than fit a terminal of 80 columns are rows, and the columns are the means of the benchmarks.

    Args:
        metrics: what :func:`short_metrics` returned, or ``json.loads`` of metrics.json.
        title: printed above.
    """
    # no frame around it: four heads then fit a terminal of 80 columns
    table = Table(show_edge=False, pad_edge=False)
    shown = Group(Text(printable(title), style="table.title"), table)  # a title of the table is as narrow as the table
    keys = {key: None for lines in metrics.values() for key in lines}
    corpora = [key for key in keys if "/" not in key]
    if len(metrics) > _MOST_COLUMNS:
        table.add_column("head", overflow="fold")
        for corpus in corpora:
            table.add_column(Text(f"mean of {printable(corpus)}"), justify="right")
        for head, lines in metrics.items():
            table.add_row(Text(printable(head)), *(Text(_pair(lines.get(corpus, {}))) for corpus in corpora))
        return shown
    table.add_column("set")
    for head in metrics:
        table.add_column(Text(printable(head)), justify="right")
    for corpus in corpora:
        means = [lines[corpus] for lines in metrics.values() if corpus in lines]
        for key in (key for key in keys if key.startswith(f"{corpus}/")):
            name = key if len(corpora) > 1 else key.partition("/")[2]
            table.add_row(Text(printable(name)), *(Text(_pair(lines.get(key, {}))) for lines in metrics.values()))
        table.add_section()
        title = f"mean of {corpus}" if len(corpora) > 1 else "mean over sets"
        table.add_row(Text(printable(title), style="bold"), *(Text(_pair(mean), style="bold") for mean in means))
        covered = [(mean["ap_sets"], mean["accuracy_sets"], mean["sets"]) for mean in means]
        counts = [f"{ap} / {acc} of {total}" if ap != acc else f"{ap} of {total}" for ap, acc, total in covered]
        table.add_row(Text("sets covered"), *map(Text, counts), end_section=True)
    return shown


def _pair(line: Mapping[str, float]) -> str:
    return " / ".join(f"{100 * line[metric]:.1f}" if metric in line else "undefined" for metric in HEADLINE)
