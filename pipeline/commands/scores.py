"""Scores of heads and of other detectors, image by image."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from pipeline import workspace
from pipeline.commands.arguments import PATH, corpus_option, echo, names_in, refuse_overwriting
from storage.errors import SettingError


@click.command()
@corpus_option
@click.option("--head", "name", metavar="NAME", shell_complete=names_in("heads"), help="A head, else all.")
@click.option("--seed", type=int, help="The seed it was trained with; without it, all of params.yaml.")
@click.option(
    "--trained-on",
    metavar="NAME",
    shell_complete=names_in("train_on"),
    help="The corpus that heads were trained on; without it, each of `train_on`.",
)
@click.option("--head-file", type=PATH, help="Any head file, with --features and --out.")
@click.option("--features", type=PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--out", type=PATH, help="The scores file to write, with --head-file and --features.")
def evaluate(
    *, corpus: str | None, head_file: Path | None, features: Path | None, out: Path | None, **chosen: Any
) -> None:
    """Score a corpus's images with the heads of params.yaml; features are read once for all of them.

    Every view of the corpus is scored, and the images held out of a head's training, for a threshold of the training
    domain. What was scored before with the same head and features is not scored again. With --head-file, --features and
    --out, any head scores any one view.
    """
    from pipeline.speed import record
    from stages.evaluate.run import HeadToScore, run, run_views
    from storage.store import finished_folder

    if head_file or features or out:
        if not (head_file and features and out):
            raise SettingError("--head-file, --features and --out belong together: give all three")
        if any(option is not None for option in (corpus, *chosen.values())):
            raise SettingError(
                "--head, --seed, --trained-on and --corpus would do nothing beside --head-file; leave them out"
            )
        refuse_overwriting(out, head_file, features)
        echo(f"{out}: {run(features=features, head=head_file, out=out)} images scored")
        return
    params = workspace.project_params()
    corpus = workspace.needed(corpus, "--corpus")
    workspace.defined(params.corpora, corpus, "corpora")
    refs = workspace.study_heads(params, **chosen)
    heads = [
        HeadToScore(ref.file, workspace.scores(corpus, ref.features.name, ref.name, ref.seed), ref.features)
        for ref in refs
    ]
    started = time.perf_counter()
    summaries = run_views(
        features=workspace.features(corpus),
        heads=heads,
        finished=finished_folder("scores"),
        match=params.evaluate.match,
    )
    images = sum(each.scored for each in summaries)
    rate = (time.perf_counter() - started) / max(1, images)
    for ref, head, summary in zip(refs, heads, summaries, strict=True):
        if summary.scored:
            record("scoring", f"{corpus}/{ref.run}", seconds=rate * summary.scored, images=summary.scored)
        echo(f"{head.out}: {summary.views} views, {summary.scored} images scored, {summary.kept} kept")


@click.command("import-scores")
@click.argument("file", required=False, type=PATH)
@click.option(
    "--as",
    "name",
    metavar="NAME",
    required=True,
    help="What the detector is called; without FILE, an entry of `external`.",
)
@corpus_option
@click.option("--column", metavar="NAME", help="The column of the scores.  [default: one of a usual name]")
@click.option(
    "--higher-is", type=click.Choice(["synthetic", "real"]), help="What a high score says.  [default: synthetic]"
)
@click.option("--logits", is_flag=True, help="Scores are not probabilities; 0 divides the classes.")
def import_scores(*, file: Path | None, name: str, corpus: str | None, **reading: Any) -> None:
    """Take the scores of any detector on the images of a corpus: tables and tests then treat it as a head.

    FILE is CSV, JSON lines or Parquet with a column of paths, file names or sha256 and one of scores. An entry of
    `external` in params.yaml makes it a stage of the graph and a line of the report.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.params import ExternalScores
    from stages.evaluate.external import run

    params = workspace.project_params()
    if file is None:
        if corpus or any(reading.values()):
            raise SettingError("without FILE, --corpus, --column, --higher-is and --logits come from `external`")
        entry = workspace.defined(params.external, name, "external")
    else:
        corpus = workspace.needed(corpus, "--corpus")
        workspace.defined(params.corpora, corpus, "corpora")
        given = {option: value for option, value in reading.items() if value}
        entry = ExternalScores(file=str(file), corpus=corpus, **given)
    features = workspace.view(entry.corpus)
    out = workspace.external(name) / f"{features.name}.parquet"
    card = run(
        file=Path(entry.file),
        detector=entry.detector or name,
        features=features,
        out=out,
        reporter=ConsoleReporter(),
        **entry.model_dump(include=set(reading)),
    )
    facts = card.facts["external"]
    echo(
        f"{out}: {facts['rows'] - facts['unmatched'] - facts['ambiguous']} rows matched, "
        f"{facts['images_without_score']} images without a score"
    )
    if name not in params.external:
        line = {name: entry.model_dump(mode="json", exclude_defaults=True)}
        echo(f"to have it in the report, add to params.yaml: external: {json.dumps(line)}")
