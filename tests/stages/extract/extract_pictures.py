"""Small image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth RGB picture, different for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, seed: int = 0, size: tuple[int, int] = (64, 48), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(*size, seed=seed).save(path, **options)
    return path
