"""A view of an image: the pixels that the backbone gets of it, and what the feature key says of them.

First what the view does to the whole image (augmentation of training, degradations for robustness tests), then the
geometry: how an image of any size becomes a square. S is the backbone's input side, 224 for most; names keep the
published 224 and 256, and with another S both scale with it (a 336 backbone squashes to 384).

A random draw depends on the image's path, the view and the seed alone (DESIGN: randomness), so a view is the same in
any order, batch and process. All of it is Pillow and NumPy, so that loader processes need no torch.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from storage.views import VIEW, tile_corners

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.views import Degradation, View

# Raise by hand when an edit changes the pixels of any view but "clean"; tests/stages/extract/test_golden.py guards it.
AUGMENTATION_VERSION = 1
BLUR_PROBABILITY, JPEG_PROBABILITY = 0.2, 0.5  # of the authors' training (METHOD: training)
TRAIN_SIGMA, TRAIN_QUALITY = (0.0, 2.0), (70, 100)
VAL_SIGMA, VAL_QUALITY = 1.0, 85
THUMBNAIL_SIDE = 128
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
_OWN_CROP = frozenset({"train", "val"})  # METHOD: training; the corpus's geometry plays no part


@dataclass(frozen=True)
class Recipe:
    """How all images of a corpus become pixels, beside the view.

    Attributes:
        geometry: a name in ``GEOMETRIES``.
        size: S, the backbone's input side in pixels.
        seed: of all random draws.
        apply_exif: turn images as their EXIF orientation says.
        alignment: digest of what decides how images of aligned views are encoded (``stages.extract.align``).
    """

    geometry: str
    size: int
    seed: int = 0
    apply_exif: bool = False
    alignment: str | None = None


def apply_view(image: Image.Image, view: View, recipe: Recipe, path: str) -> Image.Image:
    """Return the S x S RGB image that ``view`` makes of a decoded RGB image; its manifest ``path`` seeds its draws."""
    if view.kind == "train":
        return _train(image, recipe.size, draws(path, view, recipe.seed))
    if view.kind == "val":
        return _val(image, recipe.size, draws(path, view, recipe.seed))
    if view.kind == "tencrop":
        return ten_crop(image, recipe.geometry, recipe.size, view.number)
    if view.kind == "thumbnail":
        return _thumbnail(image, recipe.size)
    image = degraded(image, view, recipe, path)
    if view.kind == "tiles":
        return tile(image, view, recipe)[1]
    return to_square(image, recipe.geometry, recipe.size)


def degraded(image: Image.Image, view: View, recipe: Recipe, path: str) -> Image.Image:
    """Return the whole image after the steps of a view."""
    for step in view.steps:
        image = degrade(image, step, draws(path, view, recipe.seed))
    return image


def tile(image: Image.Image, view: View, recipe: Recipe) -> tuple[tuple[int, int] | None, Image.Image]:
    """Return the tile of a view and its corner; an image of fewer tiles repeats them, without a corner."""
    image = centre_pad(GEOMETRIES[recipe.geometry](image, recipe.size), recipe.size)
    corners = tile_corners(*image.size, recipe.size, view.most)
    left, top = corners[view.number % len(corners)]
    corner = (left, top) if view.number < len(corners) else None
    return corner, image.crop((left, top, left + recipe.size, top + recipe.size))


def _thumbnail(image: Image.Image, size: int) -> Image.Image:
    """Return the whole image in the middle of the upper left square of ``THUMBNAIL_SIDE``, the rest grey."""
    factor = THUMBNAIL_SIDE / max(image.size)
    width, height = (max(round(side * factor), 1) for side in image.size)
    square = Image.new("RGB", (size, size), (118, 118, 118))
    small = image.resize((width, height), BICUBIC, reducing_gap=2.0)
    square.paste(small, ((THUMBNAIL_SIDE - width) // 2, (THUMBNAIL_SIDE - height) // 2))
    return square


def draws(path: str, view: View, seed: int) -> np.random.Generator:
    """Return the generator of one image in one view; an aligned view has the draws of the plain one."""
    view = view._replace(aligned=False)
    digest = hashlib.sha256(f"{path}\0{view.directory}\0{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _train(image: Image.Image, size: int, draw: np.random.Generator) -> Image.Image:
    # every number is drawn whether or not it is used: an image's crop does not depend on its blur
    blurred, sigma = draw.random() < BLUR_PROBABILITY, draw.uniform(*TRAIN_SIGMA)
    compressed, quality = draw.random() < JPEG_PROBABILITY, draw.integers(*TRAIN_QUALITY, endpoint=True)
    image = resize_shorter(image, before_crop(size), BILINEAR)
    image = blur(image, sigma) if blurred else image
    image = recompress(image, "JPEG", int(quality)) if compressed else image
    width, height = image.size
    left, top = (int(draw.integers(side - size, endpoint=True)) for side in (width, height))
    image = image.crop((left, top, left + size, top + size))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else image


def _val(image: Image.Image, size: int, draw: np.random.Generator) -> Image.Image:
    blurred, compressed = draw.random() < BLUR_PROBABILITY, draw.random() < JPEG_PROBABILITY
    image = resize_shorter(image, before_crop(size), BILINEAR)
    image = blur(image, VAL_SIGMA) if blurred else image
    image = recompress(image, "JPEG", VAL_QUALITY) if compressed else image
    return centre_crop(image, size)


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """Blur each channel with the Gaussian of the authors' augmentation.

    Separable, reflect border, cut at 4 sigma, written to 8 bit by truncation after the vertical and again after the
    horizontal pass, so the result is about one level darker than a rounded blur. Sigma 0 changes nothing.
    """
    if sigma == 0:
        return image
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - a fifth of a second, and most runs never blur

    # SciPy filters axis after axis into an array of the output's type, and casting to uint8 truncates
    blurred = gaussian_filter(np.asarray(image), (sigma, sigma, 0), output=np.uint8, mode="reflect", truncate=4.0)
    return Image.fromarray(blurred)


def recompress(image: Image.Image, encoder: str, quality: int) -> Image.Image:
    """Encode as "JPEG" or "WEBP" with Pillow's defaults at ``quality``, and decode."""
    buffer = io.BytesIO()
    image.save(buffer, encoder, quality=quality)
    return Image.open(buffer).convert("RGB")


def degrade(image: Image.Image, step: Degradation, draw: np.random.Generator) -> Image.Image:
    """Apply one degradation to the whole image, before any resize or crop."""
    width, height = image.size
    amount = step.amount
    match step.kind:
        case "jpeg" | "webp":
            made = recompress(image, step.kind.upper(), int(amount))
        case "blur":
            made = blur(image, amount)
        case "scale":  # METHOD, robustness: Lanczos, sizes truncated
            size = max(int(width * amount), 1), max(int(height * amount), 1)
            made = image.resize(size, Image.Resampling.LANCZOS)
        case "fit":  # smaller images stay as they are
            factor = min(amount / max(width, height), 1)
            size = max(round(width * factor), 1), max(round(height * factor), 1)
            made = image.resize(size, Image.Resampling.LANCZOS)
        case "letterbox":  # a black bar above and below
            bar = round(height * amount)
            made = image.crop((0, -bar, width, height + bar))
        case "corner":  # the upper left one
            made = image.crop((0, 0, max(int(width * amount), 1), max(int(height * amount), 1)))
        case _:
            pixels = np.asarray(image, dtype=np.float64) + draw.normal(0, amount, (height, width, 3))
            made = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    return made


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


def _tile(image: Image.Image, size: int) -> Image.Image:
    """Repeat an image that is smaller than the crop, rightwards and downwards, until it is not."""
    if min(image.size) >= size:
        return image
    repeats = math.ceil(size / image.height), math.ceil(size / image.width), 1
    return Image.fromarray(np.tile(np.asarray(image), repeats))


# Name -> what is done before the crop.
GEOMETRIES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    # no resize: UFD's, RINE's and LTD's protocol
    "crop224-pad": lambda image, _size: image,
    # to 256 x 256 whatever the shape: LTD on DRCT-2M, FatFormer
    "squash256-crop224": lambda image, size: image.resize((before_crop(size), before_crop(size)), BILINEAR),
    # shorter side to 224, bicubic as CLIP's own preprocessing: C2P, grip
    "short224-crop": lambda image, size: resize_shorter(image, size, BICUBIC),
    # small images repeated instead of padded: ForgeLens, Effort, NPR
    "tile224": _tile,
}


def to_square(image: Image.Image, geometry: str, size: int) -> Image.Image:
    """Return the S x S RGB image of a geometry: its resize, then the centre crop."""
    return centre_crop(GEOMETRIES[geometry](image, size), size)


def ten_crop(image: Image.Image, geometry: str, size: int, number: int) -> Image.Image:
    """Return crop ``number`` of ten: the four corners and the centre, then the same five mirrored.

    What the geometry does before its crop comes first; a smaller image is zero-padded around its middle.
    """
    image = centre_pad(GEOMETRIES[geometry](image, size), size)
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


def decoder_name(*, apply_exif: bool) -> str:
    """Return the decoder's name and version for the feature key."""
    return "pillow-rgb-exif-1" if apply_exif else "pillow-rgb-1"


def view_spec(view: View, recipe: Recipe) -> dict[str, Any]:
    """Return the part of the feature key that describes the way from file to pixels.

    Only what can change this view is in it: the seed of views without a draw is not.
    """
    spec = {
        "decoder": decoder_name(apply_exif=recipe.apply_exif),
        "geometry": "short256-crop224" if view.kind in _OWN_CROP else recipe.geometry,
        "size": recipe.size,
        "augmentation": "none" if view.directory == VIEW else view.directory,
    }
    if view.directory != VIEW:
        spec["augmentation_version"] = AUGMENTATION_VERSION
    if view.aligned:
        spec["alignment"] = recipe.alignment
    if view.kind in _OWN_CROP or any(step.kind == "noise" for step in view.steps):
        spec["seed"] = recipe.seed
    return spec
