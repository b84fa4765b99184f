"""Images -> manifest -> features."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import workspace
from pipeline.commands.arguments import (
    PATH,
    class_options,
    comma_separated,
    corpus_option,
    echo,
    refuse_overwriting,
)
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.workspace import CorpusRef
    from stages.extract.run import ExtractSummary
    from stages.reporter import Reporter

_REASONS_SHOWN = 10


@click.command("demo-images")
@click.option("--corpus", metavar="NAME", required=True, help="A corpus under `demo` in params.yaml.")
def demo_images(*, corpus: str) -> None:
    """Make the image files of a corpus of the demo study."""
    from stages.demo.images import run

    params = workspace.project_params()
    root = workspace.defined(params.corpora, corpus, "corpora").root
    run(corpus=workspace.defined(params.demo, corpus, "demo"), out=Path(root))


@click.command()
@click.argument("folder", required=False)
@corpus_option
@click.option("--layout", help="How FOLDER lies on disk.  [default: auto, which says how it decided]")
@class_options
@click.option("--reals", metavar="FOLDER", help="Second root: real images for the sets of FOLDER that have none.")
@click.option("--sets", metavar="LIST", help="Only the sets of a named list, such as ufd16 (docs/protocols.md).")
@click.option("--split", "splits", multiple=True, help="Only this split of FOLDER; may be repeated.")
@click.option("--category", "categories", multiple=True, help="Only this category of FOLDER; may be repeated.")
@click.option("--out", type=PATH, help="The manifest to write for FOLDER (Parquet).")
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with 3, and write nothing, when an archive cannot be read or a listed file is missing.",
)
def scan(*, folder: str | None, corpus: str | None, out: Path | None, strict: bool, **options: Any) -> None:
    """List a corpus's images in its manifest; no image is opened.

    Without arguments, all corpora of params.yaml are listed, each in corpora/NAME.parquet; with --corpus one of them.
    With FOLDER (or an archive, a list of images, or a URL), anything is listed, and written where --out says. An
    archive that cannot be read is listed as one image, which extraction records as failed; with --strict the exit
    status is 3.

    Where folders or labels have other names than the usual ones, --real and --synthetic say which are which, by shell
    patterns such as 'real_*'; '*' takes all others.
    """
    if folder is None and corpus is None and not any((*options.values(), out)):
        params = workspace.project_params()
        corpora = [name for name in params.corpora if name not in params.demo]
        refs = [workspace.study_corpus(params, name) for name in corpora or params.corpora]
    else:
        refs = [workspace.given_corpus(folder, corpus, options, manifest=out)[0]]
    for ref in refs:
        _scan(ref, named=len(refs) > 1, strict=strict)
    if folder is None:
        from pipeline.params import complete_params

        if added := complete_params(workspace.PARAMS):
            echo(f"{workspace.PARAMS}: added the defaults of {', '.join(added)}, which DVC reads there")


def _scan(ref: CorpusRef, *, named: bool, strict: bool) -> None:
    from pipeline.console import ConsoleReporter
    from stages.scan.protocols import set_list
    from stages.scan.run import run

    refuse_overwriting(ref.manifest, *(Path(root) for root in (ref.root, ref.reals) if root is not None))
    reporter, settings = ConsoleReporter(), ref.settings
    _, summary = run(**ref.listing, out=ref.manifest, reporter=reporter, strict=strict)
    if named:
        echo(f"{ref.name}:")
    echo(str(summary))
    if isinstance(settings.sets, str):
        echo(set_list(settings.sets).covered(summary.sets))
    for warning in summary.warnings:
        reporter.warn(warning)
    if ref.manifest is not None:
        echo(f"manifest: {ref.manifest}")


def _blocks(_context: click.Context, _option: click.Parameter, value: str | None) -> str | list[int] | None:
    numbers = (value or "").split(",")
    return list(map(int, numbers)) if all(number.isdecimal() for number in numbers) else value


@click.command()
@click.argument("folder", required=False)
@corpus_option
@click.option("--out", type=PATH, help="Where the features of FOLDER go, one folder per view.")
@click.option(
    "--layout", help="How FOLDER's sub-folders map to labels.  [default: auto, by their names, else unlabelled]"
)
@class_options
@click.option("--backbone", help="For FOLDER: name of the backbone; `ltdpipe backbones` lists them.")
@click.option("--weights", help="For FOLDER: default, random:SEED, or a local weights file.")
@click.option("--geometry", help="For FOLDER: crop224-pad (default), squash256-crop224, short224-crop or tile224.")
@click.option("--views", callback=comma_separated, help="For FOLDER: as in clean,train:5,jpeg:70,scale:0.5+jpeg:70.")
@click.option("--taps", callback=comma_separated, help="For FOLDER: as in cls,embedding (default); docs/backbones.md.")
@click.option("--blocks", callback=_blocks, help="For FOLDER: all, a range such as 11-19, or numbers such as 3,11.")
@click.option("--apply-exif", is_flag=True, help="For FOLDER: turn pictures as their EXIF orientation says.")
@click.option("--precision", help="For FOLDER: auto (default), fp32 or fp16.")
@click.option("--shard-size", type=click.IntRange(1), default=1024, show_default=True, help="Images per shard.")
@click.option("--batch", type=click.IntRange(1), help="Images per forward pass.  [default: what suits the device]")
@click.option("--loaders", type=click.IntRange(0), help="Decoding processes per worker.  [default: by the cores]")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    envvar="LTDPIPE_WORKERS",
    help="Processes of a local cluster; also LTDPIPE_WORKERS.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    envvar="LTDPIPE_SCHEDULER",
    help="A running Dask cluster: tcp://host:8786; also LTDPIPE_SCHEDULER; see docs/cluster.md.",
)
@click.option("--compile", "compiled", is_flag=True, help="Compile the backbone with torch.compile.")
@click.option(
    "--check-content", is_flag=True, help="Hash every image; extract again what changed under the same size and time."
)
@click.option("--json", "as_json", is_flag=True, help="Progress as JSON lines on stderr, the summary on stdout.")
@click.option("--strict", is_flag=True, help="Exit with 3 when any image failed; the features are kept all the same.")
def extract(
    *, folder: str | None, corpus: str | None, out: Path | None, as_json: bool, strict: bool, **options: Any
) -> None:
    """Run the frozen backbone over a corpus and cache its features.

    With --corpus, settings come from params.yaml. With FOLDER and --out, any folder of images is extracted. Finished
    shards are never made again: the same command resumes where it was stopped. --shard-size, --loaders, --workers and
    --scheduler change no feature; --batch and --compile change them by rounding alone.

    An image that cannot be read is recorded with its reason, and the exit status is 0 all the same, so that a corpus
    with a few broken files is of use; with --strict it is 3. It is 3 in any case when no image can be read, 4 when the
    disk is full or the weights are unavailable.
    """
    from pipeline.console import ConsoleReporter, JsonReporter
    from pipeline.extraction import extract_corpus
    from stages.extract.settings import Runtime

    runtime = Runtime(**{name: options.pop(name) for name in Runtime.__dataclass_fields__})
    ref, settings = workspace.given_corpus(folder, corpus, options, features=out)
    reporter: Reporter = JsonReporter() if as_json else ConsoleReporter()
    summary = extract_corpus(ref, settings, reporter, runtime)
    if as_json:
        echo(json.dumps({"corpus": ref.name} | asdict(summary)))
    else:
        for line in _summary_lines(ref, summary):
            echo(line)
    if strict and summary.failed:
        failed = sum(summary.failed.values())
        raise DataError(f"{failed} of {ref.name}'s images failed (--strict); the features are in {ref.features}")


@click.command()
@click.argument("view", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="A folder of its own for the files.")
@click.option("--taps", callback=comma_separated, help="As in cls,embedding.  [default: all that VIEW holds]")
@click.option("--blocks", callback=_blocks, help="A range such as 11-19, or numbers such as 3,11.  [default: all]")
def export(*, view: Path, out: Path, taps: list[str] | None, blocks: str | list[int] | None) -> None:
    """Write cached features as Parquet, for pandas, DuckDB, Polars and other tools (docs/interop.md).

    VIEW is a folder of features, as features/photos/clean. Each shard becomes a file with the columns of the index
    (path, label, generator, sets and so on) and one of float16 lists for each tap and block, as cls_11 and embedding.
    Images that could not be read are left out.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.validation import settings_from
    from stages.extract.settings import ExtractSettings
    from storage.export import export_features
    from storage.features import FeatureTable

    refuse_overwriting(out, view)
    table = FeatureTable.open(view)
    spec, numbers = table.spec, list(table.spec.stored_blocks)
    if blocks is not None:
        settings = settings_from(ExtractSettings, {"blocks": blocks}, source="options: ")
        numbers = list(settings.model_copy(update={"backbone": spec.backbone}).stored_blocks(spec.blocks))
    with ConsoleReporter().progress(f"export {table.corpus}", len(table), "images") as progress:
        for images in export_features(table, out, taps=taps or spec.taps, blocks=numbers):
            progress.advance(images)
    echo(f"{table.corpus}: {len(table)} images in {out}, key {table.key[:8]}")


def _summary_lines(ref: CorpusRef, summary: ExtractSummary) -> Iterator[str]:
    """Yield what a run did: counts, failures by kind and reason, formats per class, small images, time, where it is."""
    name, failed = ref.name, sum(summary.failed.values())
    yield f"{name}: {summary.usable} images usable, {summary.extracted} extracted now, key {summary.key}"
    if failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.failed_kinds.items()))
        yield f"{name}: {failed} failed: {kinds}; recorded in index.parquet"
        most = sorted(summary.failed.items(), key=lambda item: (-item[1], item[0]))
        yield from (f"  {count} x {reason}" for reason, count in most[:_REASONS_SHOWN])
        if len(most) > _REASONS_SHOWN:
            yield f"  and {len(most) - _REASONS_SHOWN} other reasons"
    if len(summary.keys) > 1:
        yield f"{name}: views {', '.join(f'{view} (+{count})' for view, count in summary.views.items())}"
    for row in summary.formats:
        size = "size unknown" if row.median_size is None else "median {} x {}".format(*row.median_size)
        quality = "" if row.median_quality is None else f", quality {row.median_quality}"
        yield f"  {row.label:10} {row.format:8} {row.images:8} images, {size}{quality}"
    if summary.small:
        yield f"{name}: {summary.small} images are smaller than the crop (padded or repeated, as the geometry says)"
    seconds = summary.timing
    if summary.extracted and seconds.wall:
        parts = ("read", "decode", "view", "backbone", "write", "waiting")
        split = ", ".join(f"{part} {getattr(seconds, part):.1f}" for part in parts)
        yield f"{name}: {summary.extracted / seconds.wall:.1f} images/s; seconds: {split}; wall {seconds.wall:.1f}"
    yield f"{name}: features in {', '.join(str((ref.features or Path()) / view) for view in summary.keys)}"
