"""The images of the demo study."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.arguments import PATH, defined, echo, project_params


@click.command("demo-images")
@click.option("--corpus", metavar="NAME", required=True, help="A corpus under `demo` in params.yaml.")
def demo_images(corpus: str) -> None:
    """Make the image files of a corpus of the demo study."""
    from stages.demo.images import run

    params = project_params()
    run(corpus=defined(params.demo, corpus, "demo"), out=Path(defined(params.corpora, corpus, "corpora").root))


@click.command("demo-data")
@click.argument("folder", type=PATH)
@click.option("--test-images", type=click.IntRange(1), default=4, show_default=True, help="Images a folder.")
@click.option("--training-images", type=click.IntRange(1), default=40, show_default=True, help="Images a folder.")
def demo_data(folder: Path, test_images: int, training_images: int) -> None:
    """Write a tiny data root that lies on disk like the paper's benchmarks, to try the profile `paper` on."""
    from stages.demo.miniatures import run

    count = run(root=folder, test_images=test_images, training_images=training_images)
    echo(f"{folder}: {count} images; next: ltdpipe profile use paper --data {folder} --set extract.backbone=demo-vit")
