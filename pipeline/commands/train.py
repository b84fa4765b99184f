"""Features -> head."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import (
    PATH,
    defined,
    echo,
    needed,
    project_params,
    refuse_overwriting,
    trained_on,
    trained_on_option,
)
from pipeline.commands.head_options import (
    assignments_option,
    head_of_family,
    memory_option,
    threads_option,
    training_views,
    with_assignments,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.option("--head", "name", metavar="NAME", required=True, help="A head of params.yaml; with --features, a family.")
@click.option("--seed", type=click.IntRange(min=0), help="Fixes everything that is random; with --features, 0.")
@trained_on_option
@click.option("--features", type=PATH, help="Train on this extracted corpus, or view, without params.yaml.")
@assignments_option
@click.option("--out", type=PATH, help="The head file to write.")
@memory_option
@threads_option
def train(  # noqa: PLR0917 - click hands over one argument an option
    name: str,
    seed: int | None,
    learnt_from: str | None,
    features: Path | None,
    assignments: tuple[str, ...],
    out: Path | None,
    memory: int | None,
    threads: int | None,
) -> None:
    """Train a head on cached features.

    Settings come from params.yaml. With --features they do not: the head is one of the families ltd, univfd, rine,
    linear:BLOCK, linear-all, layer-transformer with its defaults, and --set changes them. A stopped training goes on
    where it was when it is started again.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.speed import record
    from stages.heads.settings import TrainSettings
    from stages.train.run import run

    of_study = features is None and out is None
    if features is None:
        params = project_params()
        corpus = trained_on(params, learnt_from)
        head, settings, features = defined(params.heads, name, "heads"), params.train, paths.features(corpus)
        seed = needed(seed, "--seed")
        if assignments:
            out = needed(out, "--out: what --set changes is not the head of params.yaml")
        out = out or paths.head(corpus, name, seed)
    else:
        head, settings = head_of_family(name), TrainSettings()
        name, seed = name.replace(":", "-"), seed or 0
        out = out or paths.head_by_hand(name, seed)
    head, settings = with_assignments(head, settings, assignments)
    views, validation_view = training_views(features, settings)
    refuse_overwriting(out, features)
    started = time.perf_counter()
    summary = run(
        views=views,
        validation_view=validation_view,
        name=name,
        head=head,
        settings=settings,
        seed=seed,
        out=out,
        reporter=ConsoleReporter(),
        memory=memory,
        threads=threads,
    )
    if of_study:
        seconds = time.perf_counter() - started
        record("training", f"{views[0].parent.name}/{name}/{seed}", of=[out.with_suffix(".csv")], seconds=seconds)
    echo(
        f"{name}, seed {seed}: best epoch {summary.best.epoch}, held-out accuracy "
        f"{summary.best.validation_accuracy:.4f}, {summary.parameters:,} parameters"
    )
