"""Features -> transition profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import PATH, corpus_option, echo, needed, refuse_overwriting

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@corpus_option
@click.option("--features", type=PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--out", type=PATH, help="The Parquet file to write.")
def analyse(corpus: str | None, features: Path | None, out: Path | None) -> None:
    """Measure how the class token moves between adjacent blocks, for real images and each generator."""
    from stages.analyse.run import run

    if features is None:
        corpus = needed(corpus, "--corpus NAME, or --features and --out")
        features, out = paths.view(corpus), out or paths.analysis(corpus)
    out = needed(out, "--out with --features")
    refuse_overwriting(out, features)
    run(features=features, out=out)
    echo(f"{out}: how the class token moves from block to block, real images against each generator")
