"""Features -> heads: trained, swept, imported, described."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

import click

from pipeline import workspace
from pipeline.commands.arguments import (
    PATH,
    echo,
    memory_option,
    names_in,
    refuse_overwriting,
    threads_option,
    trained_on_option,
)
from storage.errors import SettingError
from storage.views import view_directories

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.params import Params
    from stages.heads.settings import HeadSettings, TrainSettings
    from stages.sweep.variants import Variant
    from stages.train.run import HeadToTrain, TrainSummary
    from storage.features import FeatureTable


@click.command()
@click.option(
    "--head",
    "name",
    metavar="NAME",
    shell_complete=names_in("heads"),
    help="A head of params.yaml, else all; with --features, a family.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Fixes everything that is random; else all of params.yaml, or 0."
)
@trained_on_option
@click.option("--features", type=PATH, help="Train on this extracted corpus, or view, without params.yaml.")
@click.option(
    "--set",
    "assignments",
    metavar="KEY=VALUE",
    multiple=True,
    help="With --features: a setting of training or of the head; repeatable.",
)
@click.option("--out", type=PATH, help="With --features: the head file to write.")
@memory_option
@threads_option
def train(
    *,
    name: str | None,
    seed: int | None,
    trained_on: str | None,
    features: Path | None,
    assignments: tuple[str, ...],
    out: Path | None,
    **options: Any,
) -> None:
    """Train heads on cached features, which are read once for all of them.

    Without options, every head of params.yaml with every seed on every corpus of `train_on`; what was trained before
    from the same features, settings and code is not trained again. With --features the head is one of the families
    ltd, univfd, rine, linear:BLOCK, linear-all with its defaults, and --set changes them. Started
    again, a stopped training resumes.
    """
    from pipeline.speed import record
    from stages.heads.settings import TrainSettings
    from stages.train.run import HeadToTrain
    from storage.store import finished_folder

    if features is not None:
        family = workspace.needed(name, "--head FAMILY with --features")
        settings, training = _with_assignments(_head_of_family(family), TrainSettings(), assignments)
        name, seed = family.replace(":", "-"), seed or 0
        out = out or workspace.head_by_hand(name, seed)
        refuse_overwriting(out, features)
        _train(features, [HeadToTrain(name=name, settings=settings, seed=seed, out=out)], training, **options)
        return
    if assignments or out is not None:
        raise SettingError("--set and --out need --features; `dvc exp run -S train.lr=0.01` tries another study")
    params = workspace.project_params()
    refs = workspace.study_heads(params, name=name, seed=seed, trained_on=trained_on)
    for corpus in dict.fromkeys(ref.features for ref in refs):
        members = [ref for ref in refs if ref.features == corpus]
        heads = [
            HeadToTrain(name=ref.name, settings=params.heads[ref.name], seed=ref.seed, out=ref.file) for ref in members
        ]
        curves = workspace.curves(corpus.name) if name is None and seed is None else None
        started = time.perf_counter()
        summaries = _train(corpus, heads, params.train, finished=finished_folder("heads"), curves=curves, **options)
        seconds = (time.perf_counter() - started) / max(1, sum(not each.kept for each in summaries))
        for ref, summary in zip(members, summaries, strict=True):
            if not summary.kept:
                record("training", ref.run, seconds=seconds, parameters=summary.parameters)


def _train(
    features: Path, heads: Sequence[HeadToTrain], settings: TrainSettings, **options: Any
) -> Sequence[TrainSummary]:
    from pipeline.console import ConsoleReporter
    from stages.train.run import run

    views = _training_views(features, settings)
    summaries = run(**views, heads=heads, settings=settings, reporter=ConsoleReporter(), **options)
    for head, summary in zip(heads, summaries, strict=True):
        echo(
            f"{head.out}: {'kept, ' if summary.kept else ''}best epoch {summary.best.epoch}, held-out accuracy "
            f"{summary.best.validation_accuracy:.4f}, {summary.parameters:,} parameters"
        )
    return summaries


def _training_views(features: Path, settings: TrainSettings) -> dict[str, Any]:
    """Return the directories of the ``views`` that train and of the ``validation_view``.

    Args:
        features: an extracted corpus, with one folder a view; or one view of it, which then serves for both.
        settings: name the views of a corpus.
    """
    if (features / "index.parquet").exists():
        return {"views": [features], "validation_view": features}
    (validation,) = view_directories([settings.validation_view])
    return {
        "views": [features / name for name in view_directories(settings.views)],
        "validation_view": features / validation,
    }


def _head_of_family(family: str) -> HeadSettings:
    """Return the default settings of a family, as ``ltd``; ``linear:BLOCK`` and ``linear-all`` name linear probes.

    Raises:
        SettingError: there is no such family, or its block is none.
    """
    from pipeline.validation import load_yaml, settings_from
    from stages.heads.settings import HeadSettings

    kind, _, block = family.partition(":")
    values: dict[str, Any] = {"type": kind}
    if family == "linear-all":
        values = {"type": "linear", "block": "all"}
    elif block:
        values["block"] = load_yaml(block, f"the block {block!r} of --head {family}")
    return settings_from(cast("type[HeadSettings]", HeadSettings), values, source="--head: ")


def _with_assignments(
    head: HeadSettings, settings: TrainSettings, assignments: Sequence[str]
) -> tuple[HeadSettings, TrainSettings]:
    """Return both settings with ``KEY=VALUE`` put in; values are YAML, and override what the method sets.

    Raises:
        SettingError: a key belongs to neither, or a value is wrong.
    """
    from pipeline.validation import load_yaml, settings_from
    from stages.heads.settings import Overrides, TrainSettings

    head_values, train_values = head.model_dump(), settings.model_dump()
    known = sorted({*head_values, *train_values} - {"type", "train"})
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise SettingError(f"--set {assignment!r}: expected KEY=VALUE, as in lr=1e-4")
        if key not in known:
            raise SettingError(
                f"--set {assignment}: no setting of training or of this head; allowed: {', '.join(known)}"
            )
        value = load_yaml(text, f"--set {assignment!r}: {text!r}")
        if key in Overrides.model_fields:
            head_values["train"][key] = value
        else:
            (head_values if key in head_values else train_values)[key] = value
    head = settings_from(type(head), head_values, source="--set ")
    return head, settings_from(TrainSettings, train_values, source="--set ")


@click.command()
@click.argument("kind", type=click.Choice(["window", "layer", "generators"]))
@trained_on_option
@memory_option
@threads_option
def sweep(*, kind: str, trained_on: str | None, **options: Any) -> None:
    """Train and score many heads of the study on features that are read once.

    KIND window: the head `ltd` of params.yaml with every fixed window of 3 to 9 blocks among its candidates, where they
    are set, else among all blocks. KIND layer: a linear probe on each block. KIND generators: the head `ltd` trained on
    all generators of the corpus, on each alone, without each, on those up to a month of release, and with 10 and 100
    images of each beside all of the others. A stopped sweep resumes with the heads that are missing.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.speed import record
    from stages.sweep.run import run
    from storage.features import FeatureTable

    params = workspace.project_params()
    corpus = workspace.training_corpus(params, trained_on)
    out = workspace.sweep(corpus, kind)
    views = _training_views(workspace.features(corpus), params.train)
    started = time.perf_counter()
    rows = run(
        **views,
        evaluation=[workspace.view(tested) for tested in params.evaluate.corpora],
        variants=_variants(kind, params, FeatureTable.open(views["views"][0])),
        settings=params.train,
        seeds=params.seeds,
        out=out,
        reporter=ConsoleReporter(),
        **options,
    )
    record("sweep", f"{corpus}/{kind}", seconds=time.perf_counter() - started)
    echo(f"{out}: {len(rows)} rows in results.csv")


def _variants(kind: str, params: Params, table: FeatureTable) -> list[Variant]:
    from stages.heads.settings import LinearSettings, LtdSettings
    from stages.sweep.variants import generator_sweep, layer_sweep, window_sweep

    if kind == "layer":
        return layer_sweep(LinearSettings(), table.spec.blocks)
    head = workspace.defined(params.heads, "ltd", "heads")
    if kind == "generators":
        from stages.train.data import split_rows

        named = table.index["generator"].take(split_rows(table, params.train).training).drop_null().value_counts()
        images = {entry["values"]: entry["counts"] for entry in named.to_pylist()}
        if len(images) < 2:
            raise SettingError(
                f"sweep generators needs a training corpus with images of two generators or more, {table.corpus} has "
                f"{', '.join(images) or 'none'}; add one with a folder for each generator (docs/data.md)"
            )
        return generator_sweep(head, dict(sorted(images.items())))
    if not isinstance(head, LtdSettings):
        raise SettingError(f"sweep window needs heads.ltd of params.yaml to be of type ltd, found {head.type}")
    windows = window_sweep(head, table.spec.blocks)
    if not windows:
        raise SettingError(f"sweep window: heads.ltd.candidates {head.candidates} hold no 3 blocks; give a wider range")
    return windows


@click.command("import-head")
@click.argument("file", type=PATH)
@click.option("--format", "kind", type=click.Choice(["ltd-authors", "univfd", "rine"]), required=True)
@click.option("--features", type=PATH, required=True, help="An extracted view, of the backbone the head belongs to.")
@click.option("--name", help="What the head is called.  [default: the format]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Its number among the seeds.")
@click.option("--out", type=PATH, help="The head file to write.")
@click.option("--first-block", default=11, show_default=True, help="ltd-authors: first candidate block.")
@click.option("--heads", default=8, show_default=True, help="ltd-authors: attention heads.")
def import_head(*, file: Path, features: Path, name: str | None, out: Path | None, **options: Any) -> None:
    """Turn a checkpoint of the LTD authors, of UnivFD or of RINE into a head file.

    Tensors alone are read from FILE; code in it is refused. Its shapes have to fit the backbone of the features.
    """
    from stages.heads.foreign import run

    name = name or options["kind"]
    out = out or workspace.head_by_hand(name, options["seed"])
    refuse_overwriting(out, file, features)
    settings = run(file=file, features=features, name=name, out=out, **options)
    echo(f"{out}: {json.dumps(settings.model_dump(mode='json'))}")
