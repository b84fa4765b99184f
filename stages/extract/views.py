"""What a view is in the feature key: every setting on the way from the file to the backbone's input pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.extract.decode import decoder_name

if TYPE_CHECKING:
    from stages.extract.augment import Recipe
    from stages.extract.view_names import View

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
