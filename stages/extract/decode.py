"""From an image file to RGB pixels, and the facts that a reader learns on the way; docs/views.md has the rules.

Pillow is the reference decoder; the format is told by the content, whatever the file is called.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import time
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# What the index holds of an image that nothing is known of.
NO_FACTS = dict.fromkeys(("sha256", "format", "width", "height", "mode", "jpeg_quality", "error"))
UNREAD = "unreadable"  # the kind of failure where no byte of the file was seen
# What a decompression bomb may unfold to; the largest photographs of public corpora have a fifth of it.
MAX_PIXELS = 178_956_970
# Formats with a decoder in Pillow that image corpora use. Others (PSD, EPS, FITS...) are seldom what was meant, and
# EPS would start another program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "JPEG2000", "HEIF")
# One format under two names: a JPEG of a phone holds a second picture, for depth or motion.
_SAME_FORMAT: dict[str | None, str] = {"MPO": "JPEG", "DIB": "BMP"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"tRNS", b"eXIf")  # what of the ancillary chunks can matter: the transparent colour, and the orientation


@dataclass(frozen=True)
class Decoded:
    """One file after reading.

    Attributes:
        facts: columns of the index: sha256, format, width, height, mode, jpeg_quality, status, error.
        image: RGB, or None where it could not be decoded; then ``error`` begins with the kind of failure.
        read_s: seconds that reading and hashing took.
        decode_s: seconds that decoding took.
    """

    facts: dict[str, Any]
    image: Image.Image | None
    read_s: float = 0.0
    decode_s: float = 0.0


def decoder_name(*, apply_exif: bool) -> str:
    """Return the decoder's name and version for the feature key."""
    return "pillow-rgb-exif-1" if apply_exif else "pillow-rgb-1"


def decode(read: Callable[[], bytes], *, apply_exif: bool = False) -> Decoded:
    """Read and decode one file; whatever is wrong with it becomes ``status`` "failed" with a reason, never a crash.

    Args:
        read: gives the file's bytes.
        apply_exif: turn the picture as its EXIF orientation says.
    """
    facts: dict[str, Any] = dict(NO_FACTS)
    started = done = time.perf_counter()
    try:
        content = read()
        facts["sha256"] = hashlib.sha256(content).hexdigest()
        done = time.perf_counter()
        if not content:
            raise EOFError("the file is empty")
        with warnings.catch_warnings():  # what decoders warn of changes no pixel
            warnings.simplefilter("ignore")
            pixels = _pixels(content, facts, apply_exif=apply_exif)
    except Exception as error:  # decoders raise nearly anything on broken input; all of it is recorded
        reason = _reason(error) if facts["sha256"] else f"{UNREAD}: {_refusal(error)}"
        return Decoded(facts | {"status": "failed", "error": reason}, None, done - started)
    return Decoded(facts | {"status": "ok"}, pixels, done - started, time.perf_counter() - done)


def decode_opened(image: Image.Image, *, apply_exif: bool = False) -> Decoded:
    """Decode an image that Pillow opened or made elsewhere, as :func:`decode` does a file; its sha256 is not known.

    Args:
        image: of any mode; it may not be loaded yet.
        apply_exif: turn the picture as its EXIF orientation says.
    """
    facts: dict[str, Any] = dict(NO_FACTS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = _rgb(image, facts, apply_exif=apply_exif)
    except Exception as error:  # as above
        return Decoded(facts | {"status": "failed", "error": _reason(error)}, None)
    return Decoded(facts | {"status": "ok"}, pixels)


def _pixels(content: bytes, facts: dict[str, Any], *, apply_exif: bool) -> Image.Image:
    if content.startswith(_PNG_SIGNATURE):
        content = _png_pixels_alone(content)
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        return _rgb(image, facts, apply_exif=apply_exif)


def _png_pixels_alone(content: bytes) -> bytes:
    """Return a PNG file without the chunks that say nothing of its pixels: however large or damaged, they do not count.

    Pillow refuses a file for a long text or a wrong checksum of such a chunk, and decodes one whose pixels have a wrong
    checksum to half a picture.

    Raises:
        OSError: the checksum of a chunk of the pixels is wrong.
    """
    kept, at, view = [content[: len(_PNG_SIGNATURE)]], len(_PNG_SIGNATURE), memoryview(content)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        is_critical = not kind[0] & 0x20  # by its first letter
        if end <= len(content) and (is_critical or kind in _PNG_KEPT):
            is_sound = zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
            if is_critical and not is_sound:
                raise OSError(f"the checksum of its chunk {kind.decode('latin-1')!r} is wrong")
            kept += [content[at:end]] if is_sound else []
        elif is_critical:  # cut: Pillow says how
            kept.append(content[at:])
        at = len(content) if kind == b"IEND" else end  # what follows is no part of the picture
    return b"".join(kept)


def _rgb(image: Image.Image, facts: dict[str, Any], *, apply_exif: bool) -> Image.Image:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # a cut image must fail, whatever another library in the process set
    facts |= {
        "format": _SAME_FORMAT.get(image.format, image.format),
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
    }
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
    facts["jpeg_quality"] = _jpeg_quality(image)
    pixels = image.convert("RGB")
    return ImageOps.exif_transpose(pixels) if apply_exif else pixels


def _reason(error: Exception) -> str:
    """Return ``kind: what the decoder said``, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no image: the content is of no format that is read"
    text = _first_line(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {text}"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated: {text}"
    return f"damaged: {type(error).__name__}: {text}"


def _refusal(error: Exception) -> str:
    """Return why a file could not be read, in one line."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return _first_line(error) if isinstance(error, DataError) else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


@cache
def _formats() -> tuple[str, ...]:
    """The formats to look for; HEIC only where the package pillow-heif is installed."""
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _jpeg_quality(image: Image.Image) -> int | None:
    """Estimate the quality of a JPEG: that whose luminance table is nearest to the file's; None if it is no JPEG."""
    table = getattr(image, "quantization", {}).get(0)
    if table is None:
        return None
    distances = np.abs(_luminance_tables() - np.sort(table)).sum(axis=1)
    return int(distances.argmin()) + 1


@cache
def _luminance_tables() -> NDArray[np.int64]:
    """The tables of qualities 1..100 that the encoder writes, each sorted, since files differ in their order."""
    tables = []
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
        tables.append(np.sort(Image.open(buffer).quantization[0]))  # type: ignore[attr-defined]
    return np.array(tables)
