"""Image folders -> manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import (
    corpus_name,
    corpus_option,
    defined,
    echo,
    needed,
    project_params,
    refuse_idle,
    refuse_overwriting,
)

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("folder", required=False)
@corpus_option
@click.option(
    "--layout", default="auto", show_default=True, help="How FOLDER lies on disk; auto decides and says how it did."
)
@click.option("--reals", metavar="FOLDER", help="Second root: real images for the sets of FOLDER that have none.")
@click.option("--sets", metavar="LIST", help="Only the sets of a named list, such as ufd16 (docs/protocols.md).")
@click.option("--split", "splits", multiple=True, help="Only this split of FOLDER; may be repeated.")
@click.option("--category", "categories", multiple=True, help="Only this category of FOLDER; may be repeated.")
@click.option("--out", type=click.Path(), help="The manifest to write for FOLDER (Parquet).")
@click.option("--strict", is_flag=True, help="Exit with 3, and write nothing, when an archive cannot be read.")
def scan(  # noqa: PLR0917 - click hands over one argument an option
    folder: str | None,
    corpus: str | None,
    layout: str,
    reals: str | None,
    sets: str | None,
    splits: tuple[str, ...],
    categories: tuple[str, ...],
    out: str | None,
    strict: bool,
) -> None:
    """List a corpus's images in its manifest; no image is opened.

    With --corpus, everything comes from params.yaml and the manifest goes to corpora/NAME.parquet. With FOLDER (or an
    archive, a list of images, or a URL), anything is listed, and written where --out says. An archive that cannot be
    read is listed as one image, which extraction records as failed; with --strict the exit status is 3.
    """
    from pathlib import Path

    from pipeline.console import ConsoleReporter
    from pipeline.validation import settings_from
    from stages.scan.run import run
    from stages.scan.settings import ScanSettings
    from storage.archives import is_url

    reporter = ConsoleReporter()
    manifest: Path | None
    if folder is None:
        name = needed(corpus, "--corpus NAME or a FOLDER")
        chosen = {"layout": None if layout == "auto" else layout, "reals": reals, "sets": sets}
        refuse_idle({**chosen, "split": splits, "category": categories, "out": out})
        settings: ScanSettings = defined(project_params().corpora, name, "corpora")
        root, manifest = paths.images(settings.root), paths.manifest(name)
        second = None if settings.reals is None else paths.images(settings.reals)
    else:
        name = corpus_name(corpus, folder.rstrip("/").rpartition("/")[2] if is_url(folder) else folder)
        given = {"layout": layout, "reals": reals, "sets": sets, "splits": splits or None}
        settings = settings_from(
            ScanSettings, {"root": folder, **given, "categories": categories or None}, source="options: "
        )
        root, second, manifest = folder, reals, None if out is None else Path(out)
        refuse_overwriting(manifest, *(Path(given) for given in (folder, reals) if given is not None))
    _, summary = run(
        corpus=name,
        root=root,
        layout=settings.layout,
        reals=second,
        classes=settings.classes,
        selection=settings.selection,
        out=manifest,
        reporter=reporter,
        strict=strict,
    )
    for line in str(summary).splitlines():
        echo(line)
    if isinstance(settings.sets, str):
        from stages.scan.protocols import set_list

        echo(set_list(settings.sets).covered(summary.sets))
    for warning in summary.warnings:
        reporter.warn(warning)
