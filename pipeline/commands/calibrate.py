"""Bundle x images of known class -> calibrated bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import workspace
from pipeline.commands.arguments import PATH, echo, refuse_overwriting

if TYPE_CHECKING:
    from stages.predict.calibration import Classes
    from stages.predict.manifest import Calibration

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
    "--images",
    "classes",
    type=click.Choice(["labelled", "real", "unlabelled"]),
    default="labelled",
    show_default=True,
    help="What is known of the images: their labels; that all are real; nothing, then --share sets the threshold.",
)
@click.option("--share", type=_SHARE, default=0.5, show_default=True, help="Synthetic share of unlabelled images.")
@click.option("-o", "--out", type=PATH, help="The calibrated bundle; without it HEAD is replaced, if it is a bundle.")
def calibrate(
    *,
    head: Path,
    on: str,
    target_fpr: float,
    unsure: float | None,
    classes: Classes,
    share: float,
    out: Path | None,
) -> None:
    """Set the threshold of a bundle from real images that its head was not trained on.

    HEAD is a bundle, or a head file together with --out. What the calibration promises is printed and kept in the
    bundle. Too few images are refused: --target-fpr 0.01 needs 99 real ones, --unsure 0.05 needs 19 synthetic ones.
    """
    from stages.predict.calibration import run
    from storage.errors import SettingError

    is_bundle = head.suffix != ".safetensors"
    if out is None and not is_bundle:
        raise SettingError(f"{head} is a head file: name the bundle that it becomes with --out")
    images, out = _images(on), out or head
    refuse_overwriting(out, images, None if is_bundle else head)
    found = run(
        bundle=head,
        on=images,
        out=out,
        classes=classes,
        target_fpr=target_fpr,
        unsure=unsure,
        share=share,
    )
    band = "" if found.real_up_to is None else f", real up to {found.real_up_to:.4f}"
    echo(f"{out}: synthetic above logit {found.threshold:.4f}{band}; {found.source}")
    echo(f"probabilities: {_probabilities(found)}")
    echo(f"guarantee: {found.guarantee}")


def _probabilities(found: Calibration) -> str:
    if found.scaling is None:
        return "0.5 at the threshold, and otherwise not calibrated: that takes images of both classes, with labels"
    return (
        f"of equally likely classes; the verdict is synthetic above {found.synthetic_above:.4f}, which keeps the "
        "false-positive rate"
    )


def _images(on: str) -> Path:
    """Return the path that --on names, or the extracted view of the corpus."""
    path = Path(on)
    if path.exists() or not workspace.PARAMS.exists() or path.suffix:
        return path
    workspace.defined(workspace.project_params().corpora, on, "corpora")
    return workspace.view(on)
