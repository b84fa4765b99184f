"""From a decoded image to the backbone's input pixels: a view is a geometry, and later augmentations on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torchvision.transforms.functional import center_crop

from stages.extract.decode import DECODER

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def _crop224_pad(image: Image.Image) -> Image.Image:
    """Centre crop; a smaller image is zero-padded. UFD's, RINE's and LTD's protocol."""
    cropped: Image.Image = center_crop(image, [224, 224])
    return cropped


def _squash256_crop224(image: Image.Image) -> Image.Image:
    """Resize to 256 x 256 whatever the shape (bilinear), then centre crop. LTD's protocol on DRCT-2M."""
    return _crop224_pad(image.resize((256, 256), Image.Resampling.BILINEAR))


GEOMETRIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop224-pad": _crop224_pad,
    "squash256-crop224": _squash256_crop224,
}


def view_spec(geometry: str) -> dict[str, Any]:
    """Return the part of the feature key that describes the way from file to pixels."""
    return {"decoder": DECODER, "geometry": geometry, "augmentation": "none"}


def pixels_of(image: Image.Image, geometry: str) -> NDArray[np.uint8]:
    """Return (224, 224, 3) uint8 pixels of an RGB image."""
    return np.asarray(GEOMETRIES[geometry](image))
