"""What a study measures: audit, transitions, the report, and two heads or studies side by side."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import workspace
from pipeline.commands.arguments import (
    PATH,
    corpus_option,
    echo,
    print_table,
    refuse_overwriting,
    trained_on_option,
)
from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.params import Params

_MOST_COLUMNS = 4  # of heads that fit a terminal of 80 columns


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
    from stages.extract.registry import has_random_weights

    params = workspace.project_params()
    metrics = write_report(params)
    if not quiet:
        random = has_random_weights(params.extract.backbone, params.extract.weights)
        title = f"{params.study}: AP / accuracy in percent, mean over seeds{'; random weights' if random else ''}"
        print_table(*_results(metrics), title=title)
        echo(f"report: {workspace.report(params.study) / 'report.html'}")


def _results(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of what metrics.json holds: a row per set, a column per head, the mean below.

    More heads than fit a terminal of 80 columns are rows, and the columns are the means of the benchmarks.
    """
    keys = dict.fromkeys(key for lines in metrics.values() for key in lines)
    corpora = [key for key in keys if "/" not in key]
    if len(metrics) > _MOST_COLUMNS:
        rows = [[head, *(_both(lines.get(corpus, {})) for corpus in corpora)] for head, lines in metrics.items()]
        return ["head", *(f"mean of {corpus}" for corpus in corpora)], rows
    rows = []
    for corpus in corpora:
        for key in (key for key in keys if key.startswith(f"{corpus}/")):
            name = key if len(corpora) > 1 else key.partition("/")[2]
            rows.append([name, *(_both(lines.get(key, {})) for lines in metrics.values())])
        means = [lines[corpus] for lines in metrics.values()]
        counts = [dict.fromkeys((mean["ap_sets"], mean["accuracy_sets"])) for mean in means]
        covered = [f"{' / '.join(map(str, of))} of {mean['sets']}" for of, mean in zip(counts, means, strict=True)]
        name = f"mean of {corpus}" if len(corpora) > 1 else "mean over sets"
        rows += [[], [name, *map(_both, means)], ["sets covered", *covered], []]
    return ["set", *metrics], rows[:-1]


def _both(line: Mapping[str, float]) -> str:
    return " / ".join(f"{100 * line[metric]:.1f}" if metric in line else "undefined" for metric in ("ap", "accuracy"))


@click.command()
@click.argument("one")
@click.argument("other")
@click.option("--out", type=PATH, help="Also write the table; its suffix says how: .csv, .md, .tex or .html.")
def compare(*, one: str, other: str, out: Path | None) -> None:
    """Compare two heads, or two studies, on the same images, set by set, with paired tests.

    ONE and OTHER are heads of params.yaml, as the report calls them, or folders of scores, as `scores` of another
    checkout. Of two folders, heads of one name are compared.
    """
    from stages.report.compare import run
    from stages.report.html import table_page
    from stages.report.table import WRITERS
    from storage.atomic import write_text

    writers = {**WRITERS, "html": table_page}
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
    for (head, against), rows in groupby(table.blocks[0].rows, key=itemgetter(0, 1)):
        print_table(header, map(_compare_row, rows), title=f"{head} against {against}")
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
    _, _, name, metric, first, second, difference, low, high, _, p_holm, _ = texts
    return [name, metric, first, second, difference, f"{low} to {high}", p_holm]
