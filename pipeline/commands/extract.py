"""Manifest -> features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import PATH, corpus_option, defined, needed, project_params

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("folder", required=False, type=PATH)
@corpus_option
@click.option("--out", type=PATH, help="Where the features of FOLDER go.")
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="How FOLDER's sub-folders tell the label; auto: by their names, or not at all where none has such a name.",
)
@click.option("--backbone", help="For FOLDER: name of the backbone.")
@click.option("--weights", help="For FOLDER: default, random:SEED, or a local weights file.")
@click.option(
    "--geometry", default="crop224-pad", show_default=True, help="For FOLDER: how an image becomes 224 x 224 pixels."
)
@click.option("--shard-size", default=1024, show_default=True, help="Images a shard; changes no feature.")
@click.option("--batch", default=32, show_default=True, help="Images a forward pass; changes no feature.")
def extract(  # noqa: PLR0917 - click hands over one argument an option
    folder: Path | None,
    corpus: str | None,
    out: Path | None,
    layout: str,
    backbone: str | None,
    weights: str | None,
    geometry: str,
    shard_size: int,
    batch: int,
) -> None:
    """Run the frozen backbone over a corpus and cache its features.

    With --corpus, settings come from params.yaml. With FOLDER and --out, any folder of images is extracted. Finished
    shards are never made again: the same command goes on where it was stopped.
    """
    from pipeline.console import ConsoleReporter
    from pipeline.params import settings_from
    from stages.extract.run import run
    from stages.extract.settings import ExtractSettings
    from stages.scan.run import run as scan_folder
    from storage.manifest import read_manifest
    from storage.store import store_root

    if folder is None:
        name = needed(corpus, "--corpus NAME, or a FOLDER with --out")
        params = project_params()
        entry = defined(params.corpora, name, "corpora")
        root, geometry, settings = paths.images(entry.root), entry.geometry, params.extract
        reals = None if entry.reals is None else paths.images(entry.reals)
        manifest, out = read_manifest(paths.manifest(name)), paths.features(name)
    else:
        name, root, reals = corpus or folder.absolute().name, folder, None
        out = needed(out, "--out, where the features go")
        manifest, _ = scan_folder(corpus=name, root=folder, layout=layout)
        given = {"backbone": backbone, "weights": weights}
        settings = settings_from(ExtractSettings, {key: value for key, value in given.items() if value is not None})
    summary = run(
        corpus=name,
        root=root,
        reals=reals,
        manifest=manifest,
        settings=settings,
        geometry=geometry,
        store=store_root(),
        out=out,
        reporter=ConsoleReporter(),
        shard_size=shard_size,
        batch=batch,
    )
    click.echo(f"{name}: {summary.usable} images usable, {summary.extracted} extracted now, key {summary.key}")
    for reason, count in sorted(summary.failed.items()):
        click.echo(f"{name}: {count} failed: {reason}")
