"""Head -> its model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.commands.arguments import PATH, echo, refuse_overwriting

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("head", type=PATH)
@click.option("--out", type=PATH, help="Write the card here instead of printing it.")
def show(*, head: Path, out: Path | None) -> None:
    """Print the model card of a HEAD file, in Markdown."""
    from stages.heads.model_card import model_card
    from storage.atomic import write_text

    refuse_overwriting(out, head)
    card = model_card(head)
    if out is None:
        echo(card, nl=False)
    else:
        write_text(out, card)
