"""What a study measures: audit, scores, transitions, the report, and two heads or studies side by side."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline import workspace
from pipeline.commands.arguments import (
    PATH,
    corpus_option,
    echo,
    names_in,
    print_table,
    refuse_overwriting,
    trained_on_option,
)
from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.params import Params


@click.command()
@click.option("--corpus", metavar="NAME", required=True, help="A corpus of params.yaml.")
@trained_on_option
@click.option(
    "--near",
    type=click.FloatRange(0, 1),
    default=0.98,
    show_default=True,
    help="Cosine from which images are near duplicates.",
)
@click.option("--no-near", is_flag=True, help="Leave near duplicates out (the slowest part of the audit).")
def audit(*, corpus: str, trained_on: str | None, near: float, no_near: bool) -> None:
    """Check a corpus for data problems that bias results.

    Sizes against the published ones, sets with one class, how well file format and size alone tell the classes apart,
    duplicates between training and test, unreadable and small images, labels that may be wrong.
    """
    from pipeline.console import ConsoleReporter
    from stages.audit.run import run
    from storage.manifest import folders_without_images

    params, reporter = workspace.project_params(), ConsoleReporter()
    settings = workspace.defined(params.corpora, corpus, "corpora")
    training = workspace.training_corpus(params, trained_on)
    out = workspace.audit(corpus, training)
    result = run(
        corpus=corpus,
        features=workspace.view(corpus),
        layout=settings.layout,
        out=out,
        reporter=reporter,
        train=workspace.view(training),
        asked=settings.set_order,
        missing=folders_without_images(workspace.manifest(corpus)),
        near=None if no_near else near,
    )
    print_table(
        ("set", "real", "synthetic", "published", "small", "metadata AP", "baseline", "matched"),
        map(_audit_row, result["sets"]),
        title=f"audit of {corpus}",
        caption="small: below the crop; metadata AP: from format, size and JPEG quality alone; baseline: of chance",
    )
    for warning in result["warnings"]:
        about = "" if warning["set"] is None else f"set {warning['set']}: "
        reporter.warn(f"{warning['kind']}: {about}{warning['text']}")
    echo(f"{out}: {len(result['warnings']) or 'no'} warning{'s' * (len(result['warnings']) != 1)}")


def _audit_row(entry: dict[str, Any]) -> list[str]:
    size, predictor = entry["expected"], entry["predictor"]
    published = "" if size is None else str(size["images"] if size["real"] is None else _pair(size))
    ap, chance = ("" if value is None else f"{value:.3f}" for value in (predictor["ap"], predictor["prevalence"]))
    counts = [entry["name"], str(entry["real"]), str(entry["synthetic"]), published, _pair(entry["below_crop"])]
    return [*counts, ap, chance, str(entry["matched"]["jpeg+size"])]


def _pair(counts: dict[str, int]) -> str:
    return f"{counts['real']} + {counts['synthetic']}"


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
    *,
    name: str | None,
    seed: int | None,
    trained_on: str | None,
    corpus: str | None,
    head_file: Path | None,
    features: Path | None,
    out: Path | None,
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
        if any(option is not None for option in (name, seed, trained_on, corpus)):
            raise SettingError(
                "--head, --seed, --trained-on and --corpus would do nothing beside --head-file; leave them out"
            )
        refuse_overwriting(out, head_file, features)
        echo(f"{out}: {run(features=features, head=head_file, out=out)} images scored")
        return
    params = workspace.project_params()
    corpus = workspace.needed(corpus, "--corpus")
    workspace.defined(params.corpora, corpus, "corpora")
    refs = workspace.study_heads(params, name=name, seed=seed, trained_on=trained_on)
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
def import_scores(
    *,
    file: Path | None,
    name: str,
    corpus: str | None,
    column: str | None,
    higher_is: Literal["synthetic", "real"] | None,
    logits: bool,
) -> None:
    """Take the scores of any detector on the images of a corpus: tables and tests then treat it as a head.

    FILE is CSV, JSON lines or Parquet with a column of paths, file names or sha256 and one of scores. An entry of
    `external` in params.yaml makes it a stage of the graph and a line of the report.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.params import ExternalScores
    from stages.evaluate.external import run

    params = workspace.project_params()
    if file is None:
        if corpus or column or higher_is or logits:
            raise SettingError("without FILE, --corpus, --column, --higher-is and --logits come from `external`")
        entry = workspace.defined(params.external, name, "external")
    else:
        corpus = workspace.needed(corpus, "--corpus")
        workspace.defined(params.corpora, corpus, "corpora")
        direction = higher_is or "synthetic"
        entry = ExternalScores(file=str(file), corpus=corpus, column=column, higher_is=direction, logits=logits)
    features = workspace.view(entry.corpus)
    out = workspace.external(name) / f"{features.name}.parquet"
    card = run(
        file=Path(entry.file),
        detector=entry.detector or name,
        features=features,
        out=out,
        reporter=ConsoleReporter(),
        column=entry.column,
        higher_is=entry.higher_is,
        logits=entry.logits,
    )
    facts = card.facts["external"]
    echo(
        f"{out}: {facts['rows'] - facts['unmatched'] - facts['ambiguous']} rows matched, "
        f"{facts['images_without_score']} images without a score"
    )
    if name not in params.external:
        line = {name: entry.model_dump(mode="json", exclude_defaults=True)}
        echo(f"to have it in the report, add to params.yaml: external: {json.dumps(line)}")


@click.command()
@corpus_option
@click.option("--features", type=PATH, help="Any extracted corpus view, instead of --corpus.")
@click.option("--out", type=PATH, help="The Parquet file to write.")
def analyse(*, corpus: str | None, features: Path | None, out: Path | None) -> None:
    """Measure how the class token moves between adjacent blocks, for real images and each generator."""
    from stages.analyse.run import run

    if features is None:
        corpus = workspace.needed(corpus, "--corpus NAME, or --features and --out")
        features, out = workspace.view(corpus), out or workspace.analysis(corpus)
    out = workspace.needed(out, "--out with --features")
    refuse_overwriting(out, features)
    run(features=features, out=out)
    echo(f"{out}: how the class token moves from block to block, real images against each generator")


@click.command()
@click.option("--quiet", is_flag=True, help="Do not print the table.")
def report(*, quiet: bool) -> None:
    """Compute metrics from the stored scores, and write tables, plots and the HTML report of the study."""
    from pipeline.study import write_report

    folder, table = write_report(workspace.project_params())
    if not quiet:
        from rich.console import Console

        Console().print(table)
        echo(f"report: {folder / 'report.html'}")


@click.command()
@click.argument("one")
@click.argument("other")
@click.option(
    "--out", type=PATH, help="Also write the table; its suffix says how: .csv, .json, .md, .tex or .html (with plots)."
)
def compare(*, one: str, other: str, out: Path | None) -> None:
    """Compare two heads, or two studies, on the same images, set by set, with paired tests.

    ONE and OTHER are heads of params.yaml, as the report calls them, or folders of scores, as `scores` of another
    checkout. Of two folders, heads of one name are compared.
    """
    from stages.report.compare import page, run
    from stages.report.table import WRITERS
    from storage.atomic import write_text

    writers = {**WRITERS, "html": page}
    if out is not None and out.suffix.removeprefix(".") not in writers:
        raise SettingError(f"--out {out}: expected a file name that ends in .{', .'.join(writers)}")
    params = workspace.project_params() if workspace.PARAMS.exists() else None
    first, second = (_scores_of(params, side) for side in (one, other))
    heads_of = {path: head for path, head in (first | second).items() if head is not None}
    order = []
    if params is not None:
        from pipeline.study import set_order

        order = set_order(params)
    table = run(one=list(first), other=list(second), names=(one, other), heads_of=heads_of, set_order=order)
    header = ("set", "metric", "first", "second", "difference", "95 % interval", "p (Holm)")
    for block in table.blocks:
        print_table(header, map(_compare_row, block.rows), title=block.title)
    if out is not None:
        write_text(out, writers[out.suffix.removeprefix(".")](table))


def _scores_of(params: Params | None, side: str) -> dict[Path, str | None]:
    """Return scores files -> what the study calls their head; None in a folder, where the files have to say it."""
    known: list[str] = []
    if params is not None:
        from pipeline.study import labels, score_files

        known = labels(params)
        if side in known:
            return dict(score_files(params, labels=[side]))
    found = sorted(Path(side).rglob("*.parquet")) if Path(side).is_dir() else []
    if not found:
        heads = ", ".join(known) or "none: there is no params.yaml here"
        raise SettingError(f"{side!r} is neither a head of params.yaml ({heads}) nor a folder with scores")
    return dict.fromkeys(found)


def _compare_row(row: Sequence[object]) -> list[str]:
    from stages.report.table import Value

    texts = [
        cell.text if isinstance(cell, Value) else f"{cell:.3f}" if isinstance(cell, float) else str(cell)
        for cell in row
    ]
    name, metric, first, second, difference, low, high, _, p_holm, _ = texts
    return [name, metric, first, second, difference, f"{low} to {high}", p_holm]
