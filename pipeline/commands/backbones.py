"""The backbones: which there are, and their weights fetched ahead of time."""

from __future__ import annotations

import click

from pipeline.commands.arguments import echo
from storage.errors import SettingError


@click.command()
def backbones() -> None:
    """List the backbones: blocks L, width D, embedding E, input S, activation, licence, whether weights are here."""
    from rich.console import Console
    from rich.table import Table

    from stages.extract.registry import BACKBONES
    from stages.extract.weights import present_weights

    table = Table("backbone", "L", "D", "E", "S", "activation", "token", "licence", "weights", box=None)
    for card in BACKBONES.values():
        here = "made here" if card.library == "demo" else "present" if present_weights(card) else "to fetch"
        numbers = map(str, (card.blocks, card.width, card.embedding, card.size))
        table.add_row(card.name, *numbers, card.activation, card.token, card.licence, here)
    Console(width=None if Console().is_terminal else 140).print(table)


@click.command()
@click.argument("name", metavar="BACKBONE")
def fetch(name: str) -> None:
    """Download a backbone's weights ahead of time, go on where a download broke off, and check their sha256.

    The last line is the file's path: on a machine without internet, copy it there and name it in extract.weights.
    """
    from pipeline.console import ConsoleReporter
    from stages.extract.registry import BACKBONES
    from stages.extract.weights import fetch_weights

    card = BACKBONES.get(name)
    if card is None or card.library == "demo":
        names = ", ".join(card.name for card in BACKBONES.values() if card.library != "demo")
        raise SettingError(f"{name!r} is no backbone with weights to fetch; choose from {names}")
    echo(str(fetch_weights(card, ConsoleReporter().note)))
