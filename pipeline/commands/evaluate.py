"""Head x features -> scores."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

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
from storage.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("--head", "name", metavar="NAME", help="A head of params.yaml.")
@click.option("--seed", type=int, help="The seed it was trained with.")
@trained_on_option
@corpus_option
@click.option("--head-file", type=PATH, help="Any head file, instead of --head and --seed.")
@click.option("--features", type=PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--out", type=PATH, help="The scores file to write, with --head-file and --features.")
def evaluate(  # noqa: PLR0917 - click hands over one argument an option
    name: str | None,
    seed: int | None,
    learnt_from: str | None,
    corpus: str | None,
    head_file: Path | None,
    features: Path | None,
    out: Path | None,
) -> None:
    """Score a corpus's images with a trained head.

    With --head, --seed and --corpus, every view of the corpus is scored, and the images held out of the head's training
    for a threshold of the training domain. With --head-file, --features and --out, any head scores any one view.
    """
    from pipeline.speed import record
    from stages.evaluate.run import run, run_views

    if head_file is not None or features is not None or out is not None:
        head_file = needed(head_file, "--head-file with --features and --out")
        features = needed(features, "--features with --head-file and --out")
        out = needed(out, "--out with --head-file and --features")
        if any(option is not None for option in (name, seed, learnt_from, corpus)):
            raise SettingError(
                "--head, --seed, --trained-on and --corpus would do nothing beside --head-file; leave them out"
            )
        refuse_overwriting(out, head_file, features)
        echo(f"{out}: {run(features=features, head=head_file, out=out)} images scored")
        return
    params = project_params()
    name, corpus, seed = needed(name, "--head"), needed(corpus, "--corpus"), needed(seed, "--seed")
    defined(params.heads, name, "heads")
    defined(params.corpora, corpus, "corpora")
    learnt_from = trained_on(params, learnt_from)
    folder = paths.scores(corpus, learnt_from, name, seed)
    started = time.perf_counter()
    counts = run_views(
        features=paths.features(corpus),
        head=paths.head(learnt_from, name, seed),
        out=folder,
        trained_on=paths.features(learnt_from),
        match=params.evaluate.match,
    )
    record(
        "scoring",
        f"{corpus}/{learnt_from}/{name}/{seed}",
        of=[paths.head(learnt_from, name, seed).with_suffix(".csv"), paths.contents(corpus)],
        seconds=time.perf_counter() - started,
        images=sum(counts.values()),
    )
    for view, count in counts.items():
        echo(f"{folder / view}.parquet: {count} images scored")
