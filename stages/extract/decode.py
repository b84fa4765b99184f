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
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

# What the index holds of an image that nothing is known of.
NO_FACTS = dict.fromkeys(("sha256", "format", "width", "height", "mode", "jpeg_quality", "error"))
UNREAD = "unreadable"  # the kind of failure where no byte of the file was seen
# What a decompression bomb may unfold to; the largest photographs of public corpora have a fifth of it.
MAX_PIXELS = 178_956_970
# Formats with a decoder in Pillow that image corpora use. Others (PSD, EPS, FITS...) are seldom what was meant, and
# EPS would start another program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "JPEG2000", "HEIF")
# One format under two names of Pillow's: the JPEG of phones, which holds a preview or gain map behind the picture, and
# a BMP without its file header.
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}
_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_PIXELS = 0x12  # the flags of VP8X that concern pixels: alpha, animation
_NEVER = 1 << 16  # longer than any segment


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
    try:
        pixels = _opened(content, facts, apply_exif=apply_exif)
    except Exception:
        bare = _without_metadata(content)
        if bare == content:
            raise
        pixels = _opened(bare, facts, apply_exif=apply_exif)
    if content.startswith(_PNG):  # Pillow passes over the checksums of pixels, and zlib's where the rows come out first
        for name, chunk, sound in _png_chunks(content):
            if name == b"IDAT" and not sound and len(chunk) == 12 + int.from_bytes(chunk[:4], "big"):
                raise OSError("a checksum of the pixels (IDAT) is wrong")
    return pixels


def _opened(content: bytes, facts: dict[str, Any], *, apply_exif: bool) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        return _rgb(image, facts, apply_exif=apply_exif)


def _without_metadata(content: bytes) -> bytes:
    """Return a PNG, JPEG or WebP file without the parts that decide no RGB pixel, anything else as it is.

    Pillow refuses a picture for long, short or damaged metadata. EXIF data stays for its orientation where it is whole.
    """
    if content.startswith(_PNG):
        kept = [
            chunk for name, chunk, sound in _png_chunks(content) if name[:1].isupper() or (name == b"eXIf" and sound)
        ]
        return b"".join([_PNG, *kept])
    if content.startswith(b"\xff\xd8"):
        return b"".join([content[:2], *_jpeg_segments(content)])
    if content[:4] + content[8:12] == b"RIFFWEBP":
        body = b"".join([b"WEBP", *_webp_chunks(content)])
        return b"RIFF" + len(body).to_bytes(4, "little") + body
    return content


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield name, bytes and whether the checksum is right of each chunk, up to the one that ends the picture."""
    name, start = b"", len(_PNG)
    while start + 12 <= len(content) and name != b"IEND":
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        name, chunk = content[start + 4 : start + 8], content[start:end]
        yield name, chunk, end <= len(content) and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        start = end


def _jpeg_segments(content: bytes) -> Iterator[bytes]:
    start = 2
    while content[start : start + 1] == b"\xff" and content[start + 1 : start + 2] != b"\xda":
        end = start + 2 + max(int.from_bytes(content[start + 2 : start + 4], "big"), 2)
        marker, segment = content[start + 1], content[start:end]
        # JFIF's and Adobe's segments say how colours are stored; libjpeg passes over those that are shorter
        shortest = {0xE0: 16, 0xE1: 10 if segment[4:10] == b"Exif\0\0" else _NEVER, 0xEE: 14}.get(marker, _NEVER)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or len(segment) >= shortest:
            yield segment
        start = end
    yield content[start:]


def _webp_chunks(content: bytes) -> Iterator[bytes]:
    start = 12
    while start + 8 <= len(content):
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        end = start + 8 + size + size % 2
        name, chunk = content[start : start + 4], content[start:end]
        if name == b"VP8X":  # its flags promise metadata that may be left out now
            yield chunk[:8] + bytes([chunk[8] & _WEBP_PIXELS]) + chunk[9:] if size else chunk
        elif name in {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"} or (name == b"EXIF" and end <= len(content)):
            yield chunk
        start = end


def _rgb(image: Image.Image, facts: dict[str, Any], *, apply_exif: bool) -> Image.Image:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # a cut image must fail, whatever another library in the process set
    facts |= {"format": _SAME_FORMAT.get(str(image.format), image.format), "mode": image.mode}
    facts |= {"width": image.width, "height": image.height}
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
    facts["jpeg_quality"] = _jpeg_quality(image)
    _refuse_missing_parts(image)
    pixels = image.convert("RGB")
    if apply_exif:
        with suppress(Exception):  # EXIF data that cannot be read turns nothing; Pillow raises nearly anything on it
            return ImageOps.exif_transpose(pixels)
    return pixels


def _refuse_missing_parts(image: Image.Image) -> None:
    """Refuse a TIFF whose strips do not cover the picture: Pillow leaves what is missing black.

    Raises:
        EOFError: a strip is not listed, or at no place.
    """
    tiles = getattr(image, "tile", ())
    if image.format == "TIFF" and tiles and tiles[0].codec_name == "raw":
        listed = {tile.extents for tile in tiles if tile.offset}  # the same place once a plane
        covered = sum((right - left) * (lower - upper) for left, upper, right, lower in listed)
        if covered < image.width * image.height:
            raise EOFError(f"strips hold {covered} of {image.width * image.height} pixels")


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
