"""What a view does to the pixels: training and validation augmentation, and degradations for robustness tests.

A random draw depends on the image's path, the view and the seed alone (DESIGN: randomness), so a view is the same in
any order, batch and process.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stages.extract.geometry import BILINEAR, before_crop, centre_crop, resize_shorter, ten_crop, to_square

if TYPE_CHECKING:
    from stages.extract.view_names import Degradation, View

BLUR_PROBABILITY, JPEG_PROBABILITY = 0.2, 0.5  # of the authors' training (METHOD: training)
TRAIN_SIGMA, TRAIN_QUALITY = (0.0, 2.0), (70, 100)
VAL_SIGMA, VAL_QUALITY = 1.0, 85


@dataclass(frozen=True)
class Recipe:
    """How all images of a corpus become pixels, beside the view.

    Attributes:
        geometry: a name in ``GEOMETRIES``.
        size: S, the backbone's input side in pixels.
        seed: of all random draws.
    """

    geometry: str
    size: int
    seed: int = 0


def apply_view(image: Image.Image, view: View, recipe: Recipe, path: str) -> Image.Image:
    """Return the S x S RGB image that ``view`` makes of a decoded image.

    Args:
        image: RGB, of any size.
        view: which view.
        recipe: geometry, size and seed.
        path: the image's path in the manifest; seeds the random views.
    """
    if view.kind == "train":
        return _train(image, recipe.size, draws(path, view, recipe.seed))
    if view.kind == "val":
        return _val(image, recipe.size, draws(path, view, recipe.seed))
    if view.kind == "tencrop":
        return ten_crop(image, recipe.geometry, recipe.size, view.number)
    for step in view.steps:
        image = degrade(image, step, draws(path, view, recipe.seed))
    return to_square(image, recipe.geometry, recipe.size)


def draws(path: str, view: View, seed: int) -> np.random.Generator:
    """Return the generator of one image in one view."""
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
    if step.kind in {"jpeg", "webp"}:
        return recompress(image, step.kind.upper(), int(step.amount))
    if step.kind == "blur":
        return blur(image, step.amount)
    if step.kind == "scale":  # METHOD, robustness: Lanczos, sizes truncated
        width, height = (max(int(side * step.amount), 1) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, dtype=np.float64) + draw.normal(0, step.amount, (*image.size[::-1], 3))
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
