"""Head x features -> scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import PATH, corpus_option, defined, needed, project_params

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("--head", "name", metavar="NAME", help="A head of params.yaml.")
@click.option("--seed", type=int, help="The seed it was trained with.")
@corpus_option
@click.option("--head-file", type=PATH, help="Any head file, instead of --head and --seed.")
@click.option("--features", type=PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--out", type=PATH, help="The scores file to write.")
def evaluate(  # noqa: PLR0917 - click hands over one argument an option
    name: str | None,
    seed: int | None,
    corpus: str | None,
    head_file: Path | None,
    features: Path | None,
    out: Path | None,
) -> None:
    """Score a corpus's images with a trained head."""
    from stages.evaluate.run import run

    if head_file is None or features is None or out is None:
        params = project_params()
        name, corpus = needed(name, "--head"), needed(corpus, "--corpus")
        defined(params.heads, name, "heads")
        defined(params.corpora, corpus, "corpora")
        seed = needed(seed, "--seed")
        head_file = head_file or paths.head(name, seed)
        features = features or paths.view(corpus)
        out = out or paths.scores(corpus, name, seed) / f"{features.name}.parquet"
    count = run(features=features, head=head_file, out=out)
    click.echo(f"{out}: {count} images scored")
