"""Other projects' checkpoints -> head."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import click

from pipeline import paths
from pipeline.commands.arguments import PATH, echo, refuse_overwriting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor


@click.command("import-head")
@click.argument("file", type=PATH)
@click.option("--format", "kind", type=click.Choice(["ltd-authors", "univfd", "rine"]), required=True)
@click.option("--features", type=PATH, required=True, help="An extracted view, of the backbone the head belongs to.")
@click.option("--name", help="What the head is called.  [default: the format]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Its number among the seeds.")
@click.option("--out", type=PATH, help="The head file to write.")
@click.option("--first-block", default=11, show_default=True, help="ltd-authors: first candidate block.")
@click.option("--heads", default=8, show_default=True, help="ltd-authors: attention heads.")
@click.option(
    "--check-backbone",
    metavar="WEIGHTS",
    help="ltd-authors: compare the CLIP in FILE with local weights, `default` or a file, value by value.",
)
def import_head(  # noqa: PLR0917 - click hands over one argument an option
    file: Path,
    kind: Literal["ltd-authors", "univfd", "rine"],
    features: Path,
    name: str | None,
    seed: int,
    out: Path | None,
    first_block: int,
    heads: int,
    check_backbone: str | None,
) -> None:
    """Turn a checkpoint of the LTD authors, of UnivFD or of RINE into a head file.

    Tensors alone are read from FILE; code in it is refused. Its shapes have to fit the backbone of the features.
    """
    from stages.heads.foreign import run

    name = name or kind
    out = out or paths.head_by_hand(name, seed)
    refuse_overwriting(out, file, features)
    settings = run(
        file=file,
        kind=kind,
        features=features,
        name=name,
        seed=seed,
        out=out,
        first_block=first_block,
        heads=heads,
        backbone=_local_backbone(features, check_backbone) if check_backbone else None,
    )
    echo(f"{out}: {json.dumps(settings.model_dump(mode='json'))}")


def _local_backbone(features: Path, weights: str) -> Mapping[str, Tensor]:
    """The weights of the backbone that made the features, by open_clip's names of the image tower."""
    from stages.extract.backbone import load_backbone
    from storage.errors import DataError
    from storage.features import FeatureTable

    spec = FeatureTable.open(features).spec
    backbone = load_backbone(spec.backbone, weights=weights, precision="auto")
    if backbone.weights != spec.weights:
        raise DataError(
            f"{features} was made with weights of sha256 {spec.weights}, and {weights} gives {backbone.weights}; name "
            "the weights that made the features"
        )
    local: Mapping[str, Tensor] = backbone.tower.module.state_dict()
    return local
