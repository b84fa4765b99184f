"""Bundle x image -> a page that shows what the verdict rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.commands.arguments import PATH, echo, refuse_overwriting

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("image", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The HTML page to write.")
@click.option(
    "--weights", default="default", show_default=True, help="Backbone: default, random:SEED, or a local file."
)
def explain(*, bundle: Path, image: Path, out: Path, weights: str) -> None:
    """Write a page on one image: its transition profile, the blocks that decide, and what each branch adds."""
    from stages.predict.detector import Detector
    from stages.predict.explain import run

    refuse_overwriting(out, bundle, image)
    found = run(detector=Detector.load(bundle, weights=weights), image=image, out=out)
    prediction = found.prediction
    limit = f"(synthetic above {prediction.synthetic_above:.4f})"
    echo(f"{out}: {prediction.verdict}, probability of synthetic {prediction.probability:.4f} {limit}")
