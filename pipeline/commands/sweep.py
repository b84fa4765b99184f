"""Many heads at once -> a table."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import click

from pipeline import paths
from pipeline.commands.arguments import defined, echo, project_params, trained_on, trained_on_option
from pipeline.commands.head_options import memory_option, threads_option, training_views
from storage.errors import SettingError

if TYPE_CHECKING:
    from pipeline.params import Params
    from stages.sweep.variants import Variant


@click.command()
@click.argument("kind", type=click.Choice(["window", "layer"]))
@trained_on_option
@memory_option
@threads_option
def sweep(
    *, kind: Literal["window", "layer"], learnt_from: str | None, memory: int | None, threads: int | None
) -> None:
    """Train and score many heads of the study on features that are read once.

    KIND window: the head `ltd` of params.yaml with every fixed window of 3 to 9 blocks among its candidates, where they
    are set, else among all blocks. KIND layer: a linear probe on each block. A stopped sweep resumes with the heads
    that are missing.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.speed import record
    from stages.sweep.run import run
    from storage.features import FeatureTable

    params = project_params()
    corpus = trained_on(params, learnt_from)
    out = paths.sweep(corpus, kind)
    views, validation_view = training_views(paths.features(corpus), params.train)
    started = time.perf_counter()
    rows = run(
        views=views,
        validation_view=validation_view,
        evaluation=[paths.view(tested) for tested in params.evaluate.corpora],
        variants=_variants(kind, params, FeatureTable.open(views[0]).spec.blocks),
        settings=params.train,
        seeds=params.seeds,
        out=out,
        reporter=ConsoleReporter(),
        memory=memory,
        threads=threads,
    )
    record("sweep", f"{corpus}/{kind}", of=[out / "results.csv"], seconds=time.perf_counter() - started)
    echo(f"{out}: {len(rows)} rows in results.csv")


def _variants(kind: str, params: Params, blocks: int) -> list[Variant]:
    from stages.heads.settings import LinearSettings, LtdSettings
    from stages.sweep.variants import layer_sweep, window_sweep

    if kind == "layer":
        return layer_sweep(LinearSettings(), blocks)
    head = defined(params.heads, "ltd", "heads")
    if not isinstance(head, LtdSettings):
        raise SettingError(f"sweep window needs heads.ltd of params.yaml to be of type ltd, found {head.type}")
    windows = window_sweep(head, blocks)
    if not windows:
        raise SettingError(f"sweep window: heads.ltd.candidates {head.candidates} hold no 3 blocks; give a wider range")
    return windows
