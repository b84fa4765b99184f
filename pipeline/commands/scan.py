"""Image folders -> manifest."""

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
@click.option("--layout", default="folder", show_default=True, help="How FOLDER's sub-folders tell the label.")
@click.option("--out", type=PATH, help="The manifest to write for FOLDER (Parquet).")
def scan(folder: Path | None, corpus: str | None, layout: str, out: Path | None) -> None:
    """List a corpus's images in its manifest.

    With --corpus, the folder and its layout come from params.yaml and the manifest goes to corpora/NAME.parquet.
    With FOLDER, any folder is listed.
    """
    from stages.scan.run import run

    if folder is None:
        name = needed(corpus, "--corpus NAME or a FOLDER")
        entry = defined(project_params().corpora, name, "corpora")
        _, summary = run(corpus=name, root=paths.images(entry.root), layout=entry.layout, out=paths.manifest(name))
    else:
        _, summary = run(corpus=corpus or folder.absolute().name, root=folder, layout=layout, out=out)
    click.echo(str(summary))
