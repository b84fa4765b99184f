"""Many heads at once -> a table and a plot."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pipeline import paths
from pipeline.commands.arguments import (
    PATH,
    defined,
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
from storage.errors import SettingError

if TYPE_CHECKING:
    from stages.train.heads.settings import HeadSettings
    from stages.train.sweep.variants import Variant


@click.command()
@click.argument("kind", type=click.Choice(["window", "layer", "heads"]))
@click.option("--head", "names", metavar="NAME", multiple=True, help="A head of params.yaml, or a family; repeatable.")
@click.option("--seeds", help="Seeds, as 0,1,2; each trains every head.  [default: those of params.yaml, or 0]")
@click.option("--vary", "varied", metavar="KEY=[V, ...]", multiple=True, help="For heads: a setting and its values.")
@trained_on_option
@click.option("--features", type=PATH, help="Train on this extracted corpus, or view, without params.yaml.")
@click.option("--test", "tests", type=PATH, multiple=True, help="With --features: score this extracted view.")
@assignments_option
@click.option("--out", type=PATH, help="Folder of the results.  [default: sweeps/TRAINED_ON/KIND, or sweeps/KIND]")
@click.option(
    "--together",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Train the seeds of a head as one computation; auto: on a GPU, if that is measured to be faster.",
)
@memory_option
@threads_option
def sweep(  # noqa: PLR0917 - click hands over one argument an option
    kind: Literal["window", "layer", "heads"],
    names: tuple[str, ...],
    seeds: str | None,
    varied: tuple[str, ...],
    learnt_from: str | None,
    features: Path | None,
    tests: tuple[Path, ...],
    assignments: tuple[str, ...],
    out: Path | None,
    together: Literal["auto", "yes", "no"],
    memory: int | None,
    threads: int | None,
) -> None:
    """Train and score many heads on features that are read once.

    KIND window: the LTD head with every fixed window of 3 to 9 blocks among its candidates, where they are set, else
    among all blocks. KIND layer: a linear probe on each block. KIND heads: each --head, with each combination of what
    --vary names. A stopped sweep goes on with the heads that are missing.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.speed import record
    from stages.train.settings import TrainSettings
    from stages.train.sweep.run import run
    from storage.features import FeatureTable

    of_study = features is None and out is None
    if features is None:
        params = project_params()
        settings, known = params.train, params.heads
        learnt_from = trained_on(params, learnt_from)
        features, out = paths.features(learnt_from), out or paths.sweep(learnt_from, kind)
        seeds = seeds or ",".join(map(str, params.seeds))
        tests = tests or tuple(paths.view(corpus) for corpus in params.evaluate.corpora)
    else:
        settings, known = TrainSettings(), None
        needed(tests or None, "--test with --features: what heads are scored on")
    heads = {}
    for name, head in _heads(kind, names, known).items():
        heads[name], settings = with_assignments(head, settings, assignments)
    views, validation_view = training_views(features, settings)
    out = out or Path("sweeps", kind)
    refuse_overwriting(out, features, *tests)
    started = time.perf_counter()
    rows = run(
        views=views,
        validation_view=validation_view,
        evaluation=tests,
        variants=_variants(kind, heads, varied, FeatureTable.open(views[0]).spec.blocks),
        settings=settings,
        seeds=_seeds(seeds or "0"),
        out=out,
        reporter=ConsoleReporter(),
        memory=memory,
        threads=threads,
        together=together,
    )
    if of_study:
        name, seconds = f"{views[0].parent.name}/{kind}", time.perf_counter() - started
        record("sweep", name, of=[out / "results.csv"], seconds=seconds)
    click.echo(f"{out}: {len(rows)} rows in results.csv")


def _seeds(listed: str) -> list[int]:
    parts = [part.strip() for part in listed.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise SettingError(f"--seeds {listed}: expected whole numbers from 0 with commas between, as 0,1,2")
    return [int(part) for part in dict.fromkeys(parts)]


def _heads(kind: str, names: tuple[str, ...], known: dict[str, HeadSettings] | None) -> dict[str, HeadSettings]:
    """The heads that a sweep starts from, by name: those of params.yaml, or families where it is not read."""
    if kind == "layer":
        if names:
            raise SettingError("sweep layer compares linear probes; leave --head out, or use sweep heads")
        return {"linear": head_of_family("linear")}
    if kind == "window":
        names = names or ("ltd",)
    elif not names and known is not None:
        names = tuple(known)
    found = {name: head_of_family(name) if known is None else defined(known, name, "heads") for name in names}
    if not found or (kind == "window" and (len(found) > 1 or found[names[0]].type != "ltd")):
        raise SettingError(f"sweep {kind} needs --head: " + ("one ltd head" if kind == "window" else "what to compare"))
    return found


def _variants(kind: str, heads: dict[str, HeadSettings], varied: tuple[str, ...], blocks: int) -> list[Variant]:
    from pydantic import ValidationError

    from pipeline.validation import parsed_assignment
    from stages.train.heads.settings import LinearSettings, LtdSettings
    from stages.train.sweep.variants import layer_sweep, product, window_sweep

    if varied and kind != "heads":
        raise SettingError(f"sweep {kind} varies what it is named after; use --vary with sweep heads")
    first = next(iter(heads.values()))
    if kind == "layer" and isinstance(first, LinearSettings):
        return layer_sweep(first, blocks)
    if kind == "window" and isinstance(first, LtdSettings):
        windows = window_sweep(first, blocks)
        if not windows:
            raise SettingError(f"sweep window: `candidates` {first.candidates} hold no 3 blocks; give it a wider range")
        return windows
    values = dict(parsed_assignment(item, "--vary") for item in varied)
    for key, listed in values.items():
        if not isinstance(listed, list) or not listed:
            raise SettingError(f"--vary {key}: expected a list of values, as in --vary 'window=[3, 5, 7]'")
        for name, head in heads.items():
            known = type(head).model_fields
            if key.partition(".")[0] not in known:
                raise SettingError(f"--vary {key}: the head {name!r} has no such setting; it has {', '.join(known)}")
    try:
        return product(heads, values)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())
        raise SettingError("--vary " + "; ".join(faults)) from error
