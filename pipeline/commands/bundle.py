"""Head -> bundle."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.arguments import PATH, echo, refuse_overwriting


@click.command()
@click.argument("head", type=PATH)
@click.option("-o", "--out", type=PATH, required=True, help="The bundle to write, as detector.ltd.")
@click.option(
    "--features",
    type=PATH,
    help="The extracted clean view of the training corpus: its bands go into the bundle, for `ltdpipe explain`.",
)
@click.option("--geometry", help="How an image becomes the backbone's input; without it, as in training.")
@click.option("--card", type=click.Path(path_type=Path, dir_okay=False), help="A text file: the model card.")
def bundle(*, head: Path, out: Path, features: Path | None, geometry: str | None, card: Path | None) -> None:
    """Put a trained head, with all that predicting needs, into one file.

    The backbone's weights are not in it: it names their hash, and predicting refuses any other.
    """
    from stages.predict.make import run
    from storage.errors import DataError

    refuse_overwriting(out, head, features, card)
    try:
        about = "" if card is None else card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"model card {card} cannot be read as UTF-8 text ({error})") from error
    made = run(head=head, out=out, features=features, geometry=geometry, about=about)
    bands = "with bands" if made.bands is not None else "without bands (name --features for them)"
    echo(f"{out}: head {made.name} on {made.spec.backbone}, {bands}, {made.calibration.source}")
