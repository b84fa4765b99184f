"""Measurements on this machine."""

from __future__ import annotations

import click

from pipeline.commands.arguments import echo
from pipeline.commands.extract import auto_or


@click.group()
def bench() -> None:
    """Measure speed on this machine."""


@bench.command("extract")
@click.option("--backbone", default="clip-vit-l-14", show_default=True, help="Which backbone.")
@click.option("--weights", default="random:0", show_default=True, help="Speed does not depend on them.")
@click.option(
    "--images", type=click.IntRange(1), default=64, show_default=True, help="How many JPEG files of 500 x 375."
)
@click.option("--batch", callback=auto_or(1), metavar="auto|N", default="auto", show_default=True)
@click.option("--loaders", callback=auto_or(0), metavar="auto|N", default="auto", show_default=True)
def bench_extract(backbone: str, weights: str, images: int, batch: int | None, loaders: int | None) -> None:
    """Images a second from JPEG files to shards, and from memory through the backbone alone, with the time split."""
    from pipeline.console import ConsoleReporter
    from pipeline.validation import settings_from
    from stages.extract.bench import measure
    from stages.extract.settings import ExtractSettings, Runtime

    settings = settings_from(ExtractSettings, {"backbone": backbone, "weights": weights}, source="--")
    result = measure(settings, images, Runtime(batch=batch, loaders=loaders), ConsoleReporter())
    time = result.timing
    echo(f"{backbone} on {result.device}, {result.precision}, {images} images")
    echo(f"from files   {result.from_files:8.2f} images/s, {time.waiting / time.wall:.0%} of the time waiting for data")
    echo(f"from memory  {result.from_memory:8.2f} images/s")
    parts = ("read", "decode", "view", "backbone", "write", "wall")
    echo("seconds      " + ", ".join(f"{part} {getattr(time, part):.2f}" for part in parts))
