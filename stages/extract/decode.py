"""From an image file to RGB pixels, and the facts that a reader learns on the way.

Pillow is the reference decoder. EXIF orientation is not applied, as in the protocols of the field; a second frame is
not read; alpha, palettes, CMYK and 16 bits become RGB as Pillow's ``convert("RGB")`` makes them.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from storage.sources import Sources

DECODER = "pillow-rgb-1"

# Luminance quantisation table of the JPEG standard (ITU-T T.81, table K.1), which encoders scale by quality.
_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61),
        *(12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56),
        *(14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77),
        *(24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101),
        *(72, 92, 95, 98, 112, 100, 103, 99),
    ]
)


@dataclass(frozen=True)
class Decoded:
    """One file after reading: ``facts`` for the index, and the RGB image, None where it could not be decoded."""

    facts: dict[str, Any]
    image: Image.Image | None


def decode(sources: Sources, path: str) -> Decoded:
    """Read and decode one file; whatever is wrong with it becomes ``status`` "failed" with a reason, never a crash."""
    facts: dict[str, Any] = dict.fromkeys(("sha256", "format", "width", "height", "mode", "jpeg_quality", "error"))
    try:
        content = sources.read(path)
        facts["sha256"] = hashlib.sha256(content).hexdigest()
        with Image.open(io.BytesIO(content)) as image:
            facts |= {"format": image.format, "width": image.width, "height": image.height, "mode": image.mode}
            facts["jpeg_quality"] = _jpeg_quality(image)
            pixels = image.convert("RGB")
    except Exception as error:  # decoders raise nearly anything on broken input; all of it is recorded
        reason = str(error).splitlines()[0] if str(error) else "no further reason"
        return Decoded(facts | {"status": "failed", "error": f"{type(error).__name__}: {reason}"}, None)
    return Decoded(facts | {"status": "ok"}, pixels)


def _jpeg_quality(image: Image.Image) -> int | None:
    """Estimate the quality of a JPEG: that of the scaled standard table nearest to the file's; None if no JPEG."""
    table = getattr(image, "quantization", {}).get(0)
    if table is None:
        return None
    distances = np.abs(_scaled_tables() - np.sort(table)).sum(axis=1)
    return int(distances.argmin()) + 1


@cache
def _scaled_tables() -> NDArray[np.int64]:
    """The luminance tables of qualities 1..100 (libjpeg's scaling), each sorted, since files differ in their order."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables = (np.outer(scale, _LUMINANCE) + 50) // 100
    return np.sort(tables.clip(1, 255), axis=1)
