"""Geometry: how a decoded image of any size becomes the square that the backbone takes.

S is the backbone's input side, 224 for most; the names keep the published 224 and 256, and with another S both scale
with it (a 336 backbone squashes to 384). All of it is Pillow, so that loader processes need no torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut the middle out; where the image is smaller, pad with zeros to ``size``.

    As torchvision's CenterCrop: an odd remainder of padding goes to the right and bottom, and the crop's corner is
    rounded half to even.
    """
    image = centre_pad(image, size)
    width, height = image.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def resize_shorter(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """Scale so that the shorter side is ``side``; the longer one is truncated to whole pixels, as torchvision does."""
    width, height = image.size
    shorter, longer = sorted(image.size)
    scaled = int(side * longer / shorter)
    size = (side, scaled) if width <= height else (scaled, side)
    return image if size == image.size else image.resize(size, resampling)


def before_crop(size: int) -> int:
    """The side that images are resized to before a crop of ``size``: 256 for 224, in proportion for others."""
    return round(size * 256 / 224)


def _whole(image: Image.Image, _size: int) -> Image.Image:
    return image


def _squash(image: Image.Image, size: int) -> Image.Image:
    side = before_crop(size)
    return image.resize((side, side), BILINEAR)


def _shorter(image: Image.Image, size: int) -> Image.Image:
    return resize_shorter(image, size, BICUBIC)


def _tile(image: Image.Image, size: int) -> Image.Image:
    """Repeat an image that is smaller than the crop, rightwards and downwards, until it is not."""
    width, height = image.size
    if min(width, height) >= size:
        return image
    columns, rows = math.ceil(size / width), math.ceil(size / height)
    tiled = Image.new("RGB", (columns * width, rows * height))
    for column in range(columns):
        for row in range(rows):
            tiled.paste(image, (column * width, row * height))
    return tiled


# Name -> what is done before the crop.
GEOMETRIES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "crop224-pad": _whole,  # no resize: UFD's, RINE's and LTD's protocol
    "squash256-crop224": _squash,  # to 256 x 256 whatever the shape: LTD on DRCT-2M, FatFormer
    "short224-crop": _shorter,  # shorter side to 224, bicubic as CLIP's own preprocessing: C2P, grip
    "tile224": _tile,  # small images repeated instead of padded: ForgeLens, Effort, NPR
}


def to_square(image: Image.Image, geometry: str, size: int) -> Image.Image:
    """Return the S x S RGB image of a geometry: its resize, then the centre crop."""
    return centre_crop(GEOMETRIES[geometry](image, size), size)


def ten_crop(image: Image.Image, geometry: str, size: int, number: int) -> Image.Image:
    """Return crop ``number`` of ten: the four corners and the centre, then the same five mirrored.

    What the geometry does before its crop comes first; a smaller image is zero-padded around its middle.
    """
    image = GEOMETRIES[geometry](image, size)
    image = centre_pad(image, size)
    width, height = image.size
    right, bottom = width - size, height - size
    if number >= 5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if number % 5 == 4:
        return centre_crop(image, size)
    left, top = ((0, 0), (right, 0), (0, bottom), (right, bottom))[number % 5]
    return image.crop((left, top, left + size, top + size))


def centre_pad(image: Image.Image, size: int) -> Image.Image:
    """Zero-pad an image around its middle where it is smaller than ``size``."""
    width, height = image.size
    if width >= size and height >= size:
        return image
    padded = Image.new("RGB", (max(width, size), max(height, size)))
    padded.paste(image, (max(size - width, 0) // 2, max(size - height, 0) // 2))
    return padded
