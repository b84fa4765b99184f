"""A look at the machine."""

from __future__ import annotations

import click

from pipeline.commands.arguments import echo


@click.command()
def doctor() -> None:
    """Look at versions, device, cores, decoders, disk, locking and weights, and say what to change."""
    from stages.extract.machine import examine
    from storage.store import store_root

    findings = list(examine(store_root()))
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        echo(f"{finding.what:{width}}  {finding.found}")
        if finding.advice:
            echo(f"{'':{width}}  -> {finding.advice}")
