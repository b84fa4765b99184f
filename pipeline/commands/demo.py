"""The images of the demo study."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.arguments import defined, project_params


@click.command("demo-images")
@click.option("--corpus", metavar="NAME", required=True, help="A corpus under `demo` in params.yaml.")
def demo_images(corpus: str) -> None:
    """Make the image files of a corpus of the demo study."""
    from stages.demo.images import run

    params = project_params()
    run(corpus=defined(params.demo, corpus, "demo"), out=Path(defined(params.corpora, corpus, "corpora").root))
