"""Manifest -> features."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import (
    PATH,
    corpus_name,
    corpus_option,
    defined,
    echo,
    needed,
    project_params,
    refuse_idle,
)
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stages.extract.summary import ExtractSummary
    from stages.reporter import Reporter

_REASONS_SHOWN = 10


def auto_or(lowest: int) -> Callable[[click.Context, click.Parameter, str], int | None]:
    """Return an option's callback: ``auto`` becomes None, anything else must be a whole number from ``lowest``."""

    def read(_context: click.Context, _option: click.Parameter, value: str) -> int | None:
        if value == "auto":
            return None
        if not value.isdecimal() or int(value) < lowest:
            raise click.BadParameter(f"{value!r} is neither auto nor a whole number from {lowest}")
        return int(value)

    return read


@click.command()
@click.argument("folder", required=False, type=PATH)
@corpus_option
@click.option("--out", type=PATH, help="Where the features of FOLDER go, one folder a view.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="How FOLDER's sub-folders tell the label; auto: by their names, or not at all where none has such a name.",
)
@click.option("--backbone", help="For FOLDER: name of the backbone; `ltdpipe backbones` lists them.")
@click.option("--weights", help="For FOLDER: default, random:SEED, or a local weights file.")
@click.option("--geometry", help="For FOLDER: crop224-pad (default), squash256-crop224, short224-crop or tile224.")
@click.option("--views", help="For FOLDER: comma-separated, as in clean,train:5,jpeg:70,scale:0.5+jpeg:70.")
@click.option("--taps", help="For FOLDER: comma-separated, from cls, ln2_cls, grid and embedding.")
@click.option("--blocks", help="For FOLDER: all, a range such as 11-19, or comma-separated numbers.")
@click.option("--grid", type=click.IntRange(1, 64), help="For FOLDER: cells a side of the tap grid.")
@click.option("--apply-exif", is_flag=True, help="For FOLDER: turn pictures as their EXIF orientation says.")
@click.option("--precision", help="For FOLDER: auto (default), fp32 or fp16.")
@click.option("--shard-size", type=click.IntRange(1), default=1024, show_default=True, help="Images a shard.")
@click.option(
    "--batch", callback=auto_or(1), metavar="auto|N", default="auto", show_default=True, help="Images a forward pass."
)
@click.option(
    "--loaders",
    callback=auto_or(0),
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="Decoding processes, for each worker.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes of a local Dask cluster.",
)
@click.option("--scheduler", metavar="ADDRESS", help="A running Dask cluster: tcp://host:8786; see docs/cluster.md.")
@click.option("--compile", "compiled", is_flag=True, help="Compile the backbone with torch.compile.")
@click.option(
    "--check-content", is_flag=True, help="Hash every image; make again what changed under the same size and time."
)
@click.option("--json", "as_json", is_flag=True, help="Progress as JSON lines on stderr, the summary on stdout.")
@click.option("--strict", is_flag=True, help="Exit with 3 when any image failed; the features are there all the same.")
def extract(  # noqa: PLR0917 - click hands over one argument an option
    folder: Path | None,
    corpus: str | None,
    out: Path | None,
    layout: str,
    shard_size: int,
    batch: int | None,
    loaders: int | None,
    workers: int,
    scheduler: str | None,
    compiled: bool,
    check_content: bool,
    as_json: bool,
    strict: bool,
    **given: str | int | bool | None,
) -> None:
    """Run the frozen backbone over a corpus and cache its features.

    With --corpus, settings come from params.yaml. With FOLDER and --out, any folder of images is extracted. Finished
    shards are never made again: the same command goes on where it was stopped. --shard-size, --loaders, --workers and
    --scheduler change no feature; --batch and --compile change them by rounding alone.

    An image that cannot be read is recorded with its reason, and the exit status is 0 all the same, so that a corpus
    with a few broken files is of use; with --strict it is 3. It is 3 in any case when no image can be read, 4 when the
    disk is full or the weights cannot be had.
    """
    from pipeline.console import ConsoleReporter, JsonReporter
    from pipeline.params import Corpus
    from pipeline.speed import record
    from pipeline.validation import settings_from
    from stages.extract.run import run
    from stages.extract.settings import ExtractSettings, Runtime
    from stages.scan.run import run as scan_folder
    from storage.manifest import read_manifest
    from storage.publish import write_contents
    from storage.store import project_root, store_root

    reporter: Reporter = JsonReporter() if as_json else ConsoleReporter()
    if folder is None:
        name = needed(corpus, "--corpus NAME, or a FOLDER with --out")
        refuse_idle({"out": out, "layout": None if layout == "auto" else layout, **given})
        params = project_params()
        entry, settings = defined(params.corpora, name, "corpora"), params.extract
        root = paths.images(entry.root)
        manifest, out = read_manifest(paths.manifest(name)), paths.features(name)
    else:
        name, root = corpus_name(corpus, folder), folder
        out = needed(out, "--out, where the features go")
        entry = settings_from(Corpus, {"root": str(folder)} | _listed(given, "geometry", "views"))
        settings = settings_from(
            ExtractSettings,
            _listed(given, "backbone", "weights", "taps", "blocks", "grid", "precision", "apply_exif"),
        )
        manifest, found = scan_folder(corpus=name, root=folder, layout=layout)
        for line in str(found).splitlines():
            reporter.note(f"{name}: {line}")
        for warning in found.warnings:
            reporter.warn(f"{name}: {warning}")
    reals = None if entry.reals is None else paths.images(entry.reals)
    summary = run(
        corpus=name,
        root=root,
        reals=reals,
        manifest=manifest,
        settings=settings,
        geometry=entry.geometry,
        views=entry.views,
        store=store_root(),
        owner=project_root() if folder is None else None,
        out=out,
        reporter=reporter,
        runtime=Runtime(shard_size, batch, loaders, workers, scheduler, compiled, check_content),
    )
    if folder is None:
        write_contents(out, paths.contents(name))
        if summary.extracted:
            passes, seconds = sum(summary.views.values()), summary.timing.wall
            record("extraction", name, of=[paths.contents(name)], seconds=seconds, images=passes)
    if as_json:
        echo(json.dumps({"corpus": name} | summary.to_json()))
    else:
        for line in _summary_lines(name, summary):
            echo(line)
    if strict and summary.failed:
        raise DataError(
            f"{sum(summary.failed.values())} of {name}'s images failed (--strict); the features are in {out}"
        )


def _listed(given: dict[str, str | int | bool | None], *names: str) -> dict[str, object]:
    """Return the options that were given, comma-separated ones as lists."""
    values: dict[str, object] = {name: given[name] for name in names if given[name] not in {None, False}}
    for name in {"views", "taps"} & set(values):
        values[name] = [part.strip() for part in str(values[name]).split(",")]
    numbers = str(values.get("blocks", "")).split(",")
    if all(number.isdecimal() for number in numbers):
        values["blocks"] = [int(number) for number in numbers]
    return values


def _summary_lines(name: str, summary: ExtractSummary) -> Iterator[str]:
    """Yield what a run did: counts, failures by kind and reason, formats per class, small images, time."""
    failed = sum(summary.failed.values())
    yield f"{name}: {summary.usable} images usable, {summary.extracted} extracted now, key {summary.key}"
    if failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.failed_kinds.items()))
        yield f"{name}: {failed} failed: {kinds}; recorded in index.parquet"
        most = sorted(summary.failed.items(), key=lambda item: (-item[1], item[0]))
        for reason, count in most[:_REASONS_SHOWN]:
            yield f"  {count} x {reason}"
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
    time = summary.timing
    if summary.extracted and time.wall:
        parts = ("read", "decode", "view", "backbone", "write", "waiting")
        split = ", ".join(f"{part} {getattr(time, part):.1f}" for part in parts)
        yield f"{name}: {summary.extracted / time.wall:.1f} images/s; seconds: {split}; wall {time.wall:.1f}"
