"""Features -> what to know about a corpus before its numbers are trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline import paths
from pipeline.commands.arguments import (
    PATH,
    corpus_option,
    defined,
    echo,
    needed,
    project_params,
    refuse_overwriting,
    trained_on,
    trained_on_option,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table


@click.command()
@corpus_option
@click.option("--features", type=PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--layout", default="folder", show_default=True, help="For --features: whose published sizes to compare.")
@trained_on_option
@click.option(
    "--train", type=PATH, help="Features of the training images, for duplicates; default: those of --trained-on."
)
@click.option("--out", type=PATH, help="The JSON file to write.")
@click.option(
    "--near",
    type=click.FloatRange(0, 1),
    default=0.98,
    show_default=True,
    help="Cosine from which images are near duplicates.",
)
@click.option("--no-near", is_flag=True, help="Leave near duplicates out (quadratic in the number of images).")
def audit(  # noqa: PLR0917 - click hands over one argument an option
    corpus: str | None,
    features: Path | None,
    layout: str,
    learnt_from: str | None,
    train: Path | None,
    out: Path | None,
    near: float,
    no_near: bool,
) -> None:
    """Look for what makes a corpus's numbers mean less than they seem to.

    Sizes against the published ones, sets with one class, how well file format and size alone tell the classes apart,
    duplicates between training and test, unreadable and small images, labels that may be wrong.
    """
    from rich.console import Console

    from pipeline.console import ConsoleReporter
    from stages.audit.run import run
    from stages.scan.layouts import layout_name

    asked: tuple[str, ...] = ()
    if features is None:
        name = needed(corpus, "--corpus NAME, or --features and --out")
        params = project_params()
        entry = defined(params.corpora, name, "corpora")
        layout, asked = entry.layout, entry.set_order
        learnt_from = trained_on(params, learnt_from)
        features, out = paths.view(name), out or paths.audit(name, learnt_from)
        train = train or paths.view(learnt_from)
    else:
        name = corpus or features.absolute().parent.name
        layout_name(layout)
    out = needed(out, "--out, where the audit goes")
    refuse_overwriting(out, features, train)
    reporter = ConsoleReporter()
    found = run(
        corpus=name,
        features=features,
        layout=layout,
        out=out,
        reporter=reporter,
        train=train,
        asked=asked,
        near=None if no_near else near,
    )
    Console().print(summary_table(found))
    for warning in found["warnings"]:
        about = "" if warning["set"] is None else f"set {warning['set']}: "
        reporter.warn(f"{warning['kind']}: {about}{warning['text']}")
    echo(f"{out}: {len(found['warnings'])} warning(s)")


def summary_table(found: dict[str, Any]) -> Table:
    """Lay out an audit's numbers for the terminal, one line a set."""
    from rich.table import Table
    from rich.text import Text

    from storage.names import printable

    caption = "small: below the crop. facts AP: how well format, size and quality of the file tell the classes apart"
    table = Table(title=Text(f"audit of {found['corpus']}"), caption=Text(caption), show_edge=False)
    table.add_column("set")
    for column in ("real", "synthetic", "published", "small", "facts AP", "chance", "matched"):
        table.add_column(column, justify="right")
    for entry in found["sets"]:
        size, predictor = entry["expected"], entry["predictor"]
        published = "" if size is None else str(size["images"] if size["real"] is None else _pair(size))
        ap, guess = ("" if value is None else f"{value:.3f}" for value in (predictor["ap"], predictor["prevalence"]))
        cells = [entry["name"], str(entry["real"]), str(entry["synthetic"]), published, _pair(entry["below_crop"])]
        table.add_row(*(Text(printable(cell)) for cell in [*cells, ap, guess, str(entry["matched"]["jpeg+size"])]))
    return table


def _pair(counts: dict[str, int]) -> str:
    return f"{counts['real']} + {counts['synthetic']}"
