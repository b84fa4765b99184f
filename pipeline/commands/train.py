"""Features -> head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import PATH, defined, project_params

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("--head", "name", metavar="NAME", required=True, help="A head of params.yaml.")
@click.option("--seed", type=int, required=True, help="Fixes everything that is random.")
@click.option("--features", type=PATH, help="Train on this extracted corpus view instead of that of params.yaml.")
@click.option("--out", type=PATH, help="The head file to write.")
def train(name: str, seed: int, features: Path | None, out: Path | None) -> None:
    """Train a head on cached features."""
    from pipeline.console import ConsoleReporter
    from stages.train.run import run

    params = project_params()
    summary = run(
        features=features or paths.view(params.train.corpus),
        name=name,
        head=defined(params.heads, name, "heads"),
        settings=params.train.settings,
        seed=seed,
        out=out or paths.head(name, seed),
        reporter=ConsoleReporter(),
    )
    click.echo(
        f"{name}, seed {seed}: best epoch {summary.best.epoch}, held-out accuracy "
        f"{summary.best.validation_accuracy:.4f}, {summary.parameters:,} parameters"
    )
