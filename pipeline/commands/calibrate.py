"""Bundle x images of known class -> calibrated bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import paths
from pipeline.commands.arguments import PATH

if TYPE_CHECKING:
    from stages.predict.calibrate import Classes

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@click.argument("head", type=PATH)
@click.option(
    "--on",
    required=True,
    metavar="SCORES|CORPUS",
    help="A scores file, an extracted view, results of predict (.csv, .jsonl), or a corpus of params.yaml.",
)
@click.option(
    "--target-fpr", type=_SHARE, default=0.01, show_default=True, help="Share of real images called synthetic."
)
@click.option("--unsure", type=_SHARE, help="Share of synthetic images called real; those between become unsure.")
@click.option(
    "--scaling",
    type=click.Choice(["temperature", "isotonic", "none"]),
    default="temperature",
    show_default=True,
    help="How probabilities are fitted where both classes are there.",
)
@click.option(
    "--images",
    "classes",
    type=click.Choice(["labelled", "real", "unlabelled"]),
    default="labelled",
    show_default=True,
    help="What is known of the images: their labels; that all are real; nothing, then --share sets the threshold.",
)
@click.option("--share", type=_SHARE, default=0.5, show_default=True, help="Synthetic share of unlabelled images.")
@click.option("-o", "--out", type=PATH, help="The calibrated bundle; without it HEAD is replaced, if it is a bundle.")
def calibrate(  # noqa: PLR0917 - click hands over one argument an option
    head: Path,
    on: str,
    target_fpr: float,
    unsure: float | None,
    scaling: str,
    classes: Classes,
    share: float,
    out: Path | None,
) -> None:
    """Set the threshold of a bundle from real images that its head was not trained on.

    HEAD is a bundle, or a head file together with --out. What the calibration promises is printed and kept in the
    bundle. Too few images are refused: --target-fpr 0.01 needs 99 real ones, --unsure 0.05 needs 19 synthetic ones.
    """
    from stages.predict.calibrate import run
    from stages.predict.make import run as make_bundle
    from storage.errors import SettingError

    bundle = head
    if head.suffix == ".safetensors":
        if out is None:
            raise SettingError(f"{head} is a head file: name the bundle that it becomes with --out")
        make_bundle(head=head, out=out)
        bundle = out
    found = run(
        bundle=bundle,
        on=_images(on),
        out=out or bundle,
        classes=classes,
        target_fpr=target_fpr,
        unsure=unsure,
        scaling=None if scaling == "none" else scaling,  # type: ignore[arg-type]
        share=share,
    )
    band = "" if found.real_up_to is None else f", real up to {found.real_up_to:.4f}"
    click.echo(f"{out or bundle}: synthetic above logit {found.threshold:.4f}{band}; {found.source}")
    click.echo(f"guarantee: {found.guarantee}")


def _images(on: str) -> Path:
    """Return the path that --on names, or the extracted view of the corpus."""
    path = Path(on)
    if path.exists() or not paths.PARAMS.exists() or path.suffix:
        return path
    from pipeline.commands.arguments import defined, project_params

    defined(project_params().corpora, on, "corpora")
    return paths.view(on)
