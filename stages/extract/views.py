"""What is in the feature key: every setting on the way from the file to the backbone's input, and of the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.extract.decode import decoder_name
from storage.spec import FeatureSpec

if TYPE_CHECKING:
    from stages.extract.augment import Recipe
    from stages.extract.backbone import Backbone
    from stages.extract.reading import Job
    from stages.extract.settings import ExtractSettings
    from stages.extract.view_names import View

# Raise by hand when an edit changes features without changing a setting; tests/stages/extract/test_golden.py guards it.
EXTRACTOR_VERSION = 1
# Raise one by hand when an edit changes what its views look like; tests/stages/extract guards them.
AUGMENTATION_VERSION = 1
_OWN_CROP = frozenset({"train", "val"})  # METHOD: training; the corpus's geometry plays no part


def view_spec(view: View, recipe: Recipe, *, apply_exif: bool) -> dict[str, Any]:
    """Return the part of the feature key that describes the way from file to pixels.

    Only what can change this view is in it: the seed of views without a draw is not.
    """
    spec = {
        "decoder": decoder_name(apply_exif=apply_exif),
        "geometry": "short256-crop224" if view.kind in _OWN_CROP else recipe.geometry,
        "size": recipe.size,
        "augmentation": "none" if view.kind == "clean" else view.directory,
    }
    if view.kind != "clean":
        spec["augmentation_version"] = AUGMENTATION_VERSION
    if view.kind in _OWN_CROP or any(step.kind == "noise" for step in view.steps):
        spec["seed"] = recipe.seed
    return spec


def feature_spec(backbone: Backbone, settings: ExtractSettings, job: Job, view: View) -> FeatureSpec:
    """Return what the features of a view will be: every setting that can change them."""
    card = backbone.card
    return FeatureSpec(
        backbone=card.name,
        weights=backbone.weights,
        activation=card.activation,
        blocks=card.blocks,
        stored_blocks=settings.stored_blocks(card.blocks),
        width=card.width,
        embedding=card.embedding,
        taps=tuple(sorted(settings.taps)),
        view=view_spec(view, job.recipe, apply_exif=job.apply_exif),
        mean=card.mean,
        std=card.std,
        precision=backbone.precision,
        extractor=EXTRACTOR_VERSION,
        grid=settings.grid,
    )
