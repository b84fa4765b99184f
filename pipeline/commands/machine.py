"""This machine: what it can do, which backbones there are, and their weights fetched ahead of time."""

from __future__ import annotations

import click

from pipeline.commands.arguments import echo
from storage.errors import SettingError


@click.command()
def doctor() -> None:
    """Check your setup (versions, device, cores, decoders, disk, locking, weights) and say what to change."""
    from stages.extract.doctor import examine
    from storage.store import store_root

    findings = list(examine(store_root()))
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        echo(f"{finding.subject:{width}}  {finding.text}")
        if finding.advice:
            echo(f"{'':{width}}  -> {finding.advice}")


@click.command()
def backbones() -> None:
    """List the backbones: blocks L, width D, embedding E, input S, activation, licence, whether weights are here."""
    from rich.console import Console
    from rich.table import Table

    from stages.extract.registry import BACKBONES
    from stages.extract.weights import present_weights

    table = Table("backbone", "L", "D", "E", "S", "activation", "token", "licence", "weights", box=None)
    for backbone in BACKBONES.values():
        here = "made here" if backbone.library == "demo" else "present" if present_weights(backbone) else "to fetch"
        numbers = map(str, (backbone.blocks, backbone.width, backbone.embedding, backbone.size))
        table.add_row(backbone.name, *numbers, backbone.activation, backbone.token, backbone.licence, here)
    Console(width=None if Console().is_terminal else 140).print(table)


@click.command()
@click.argument("name", metavar="BACKBONE")
def fetch(*, name: str) -> None:
    """Download a backbone's weights ahead of time, resume a download that broke off, and check their sha256.

    The last line is the file's path: on a machine without internet, copy it there and name it in extract.weights.
    """
    from pipeline.console import ConsoleReporter
    from stages.extract.registry import BACKBONES
    from stages.extract.weights import fetch_weights

    backbone = BACKBONES.get(name)
    if backbone is None or backbone.library == "demo":
        names = ", ".join(backbone.name for backbone in BACKBONES.values() if backbone.library != "demo")
        raise SettingError(f"{name!r} is no backbone with weights to fetch; choose from {names}")
    path, _ = fetch_weights(backbone, ConsoleReporter().note)
    echo(str(path))
