"""Make the image files of one demo corpus."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal
from zlib import crc32

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from storage.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.demo.settings import DemoCorpus

SMALLEST, LARGEST = 240, 320  # crop sides in pixels; even ones only, so that halving and doubling is exact
# Files get times from their content, of the years up to 2026: the manifest is then the same in every clone, and other
# pixels in a file of the same size are another image to extraction, which knows images by path, size and time.
_LATEST, _SPAN = 1_767_225_600, 2**27  # seconds


def run(*, corpus: DemoCorpus, out: Path) -> None:
    """Write ``out/real/*.png`` and ``out/fake/<generator>/*.png``; the same settings give the same bytes.

    Every image is a crop of its own, at a random place of one half of a photograph. Training and test corpora use
    different halves, so no pixel is in both.
    """
    halves = photographs(corpus.half)
    for kind in ("real", *corpus.generators):
        folder = out / "real" if kind == "real" else out / "fake" / kind
        draw = np.random.default_rng([corpus.seed, *kind.encode()])
        for number in range(corpus.per_set):
            crop = random_crop(halves, draw)
            image = crop if kind == "real" else GENERATORS[kind](crop)
            with atomic_path(folder / f"{number:05d}.png", sync_folder=False) as partial:
                image.save(partial, "PNG", compress_level=1)
                seconds = _LATEST - crc32(partial.read_bytes()) % _SPAN
                os.utime(partial, (seconds, seconds))


def photographs(half: Literal["left", "right"]) -> list[NDArray[np.uint8]]:
    """Return one half of each photograph, (H, W, 3)."""
    return [
        photograph[:, : photograph.shape[1] // 2] if half == "left" else photograph[:, photograph.shape[1] // 2 :]
        for photograph in load_sample_images().images
    ]


def random_crop(photographs: Sequence[NDArray[np.uint8]], draw: np.random.Generator) -> Image.Image:
    """Return a square crop of random even side, at a random place of a random photograph."""
    photograph = photographs[int(draw.integers(len(photographs)))]
    height, width = photograph.shape[:2]
    side = 2 * int(draw.integers(SMALLEST // 2, min(LARGEST, height, width) // 2 + 1))
    top, left = draw.integers(height - side + 1), draw.integers(width - side + 1)
    return Image.fromarray(photograph[top : top + side, left : left + side])


def _doubled(resampling: Image.Resampling) -> Callable[[Image.Image], Image.Image]:
    """A decoder that ends in an upsampling by two: halve by averaging, double with ``resampling``."""
    return lambda crop: crop.reduce(2).resize(crop.size, resampling)


def _grid(crop: Image.Image) -> Image.Image:
    """The faint periodic grid of transposed convolutions: every second row and column dimmed by 3 %."""
    pixels = np.asarray(crop, dtype=np.float64).copy()
    pixels[::2] *= 0.97
    pixels[:, ::2] *= 0.97
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


GENERATORS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "nearest": _doubled(Image.Resampling.NEAREST),
    "grid": _grid,
    "bilinear": _doubled(Image.Resampling.BILINEAR),
    "bicubic": _doubled(Image.Resampling.BICUBIC),
}
