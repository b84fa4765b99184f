"""From a manifest row to the pixels of all views asked for, with one decode; what loader processes run.

Pillow is the reference decoder; the format is told by the content, whatever the file is called (docs/views.md).
"""

from __future__ import annotations

import hashlib
import importlib
import io
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from stages.extract.containers import check_png_pixels, without_metadata
from stages.extract.views import Recipe, apply_view, degraded, recompress, tile
from storage.errors import DataError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from storage.sources import Sources
    from storage.views import View

# The index's columns that decoding fills.
NO_METADATA = dict.fromkeys(("sha256", "format", "width", "height", "mode", "jpeg_quality", "error"))
UNREAD = "unreadable"  # the kind of failure where no byte of the file was seen
# What a decompression bomb may unfold to; the largest photographs of public corpora have a fifth of it.
MAX_PIXELS = 178_956_970
# Formats with a decoder in Pillow that image corpora use. Others (PSD, EPS, FITS...) are seldom what was meant, and
# EPS would start another program.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "JPEG2000", "HEIF")
# One format under two of Pillow's names: the JPEG of phones, with a preview or gain map behind the picture, and a BMP
# without its file header.
_SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}


@dataclass(frozen=True)
class ReadSpec:
    """How a run reads its images.

    Attributes:
        sources: where the manifest's paths lead.
        views: all views of the run.
        recipe: how each becomes pixels.
    """

    sources: Sources
    views: tuple[View, ...]
    recipe: Recipe

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (V, S, S, 3) of the pixels of one image in all views."""
        return len(self.views), self.recipe.size, self.recipe.size, 3


@dataclass(frozen=True)
class Task:
    """One image to read.

    Attributes:
        path: in the manifest.
        views: the numbers of the views that want it.
        quality: of the JPEG that it becomes first (``stages.extract.align``); None: it stays as it is.
    """

    path: str
    views: tuple[int, ...]
    quality: int | None = None


@dataclass
class Timing:
    """Seconds spent: reading, decoding and views in the loaders; the rest in the main process."""

    read: float = 0.0
    decode: float = 0.0
    view: float = 0.0
    backbone: float = 0.0
    write: float = 0.0
    waiting: float = 0.0
    wall: float = 0.0

    def add(self, other: Timing) -> None:
        """Add other seconds to these."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class ReadResult:
    """One image after reading.

    Attributes:
        metadata: its columns of the index: sha256, format, width, height, mode, jpeg_quality, status and error.
        pixels: (V, S, S, 3) uint8, only the views of the task filled; None if it could not be decoded. It may lie in
            shared memory: valid until the next image is asked for.
        view_errors: number of a view -> why it could not be made of this image.
        timing: where the time went.
        tiles: number of a view of ``tiles`` -> upper left corner of its tile; without those that repeat others.
    """

    metadata: dict[str, Any]
    pixels: NDArray[np.uint8] | None
    view_errors: dict[int, str] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    tiles: dict[int, tuple[int, int]] = field(default_factory=dict)


def read_image(
    spec: ReadSpec, task: Task, out: NDArray[np.uint8], source: bytes | Image.Image | None = None
) -> ReadResult:
    """Decode one image and write the pixels of its views into ``out`` (V, S, S, 3).

    A view that cannot be made of it (an encoder that refuses its size) is a failure of that view alone.

    Args:
        spec: how it is read.
        task: its path, and the views wanted.
        out: where the pixels go.
        source: the image in memory, as a file's content or opened by Pillow; None: the file of the task.
    """
    timing, errors, tiles = Timing(), dict[int, str](), dict[int, tuple[int, int]]()
    content = partial(spec.sources.read, task.path) if source is None else source
    metadata, image = decode(content, apply_exif=spec.recipe.apply_exif, timing=timing)
    started = time.perf_counter()
    if image is not None:
        encoded = image if task.quality is None else None
        whole: dict[Any, Image.Image] = {}  # steps of a view -> the image after them, which its tiles share
        for number in task.views:
            view = spec.views[number]
            try:
                encoded = encoded or recompress(image, "JPEG", task.quality or 0)
                if view.kind == "tiles":
                    if view.steps not in whole:
                        whole = {view.steps: degraded(encoded, view, spec.recipe, task.path)}
                    corner, picture = tile(whole[view.steps], view, spec.recipe)
                    tiles |= {} if corner is None else {number: corner}
                else:
                    picture = apply_view(encoded, view, spec.recipe, task.path)
                out[number] = np.asarray(picture)
            except Exception as error:  # Pillow's encoders raise nearly anything; all of it is recorded
                errors[number] = f"view: {type(error).__name__}: {error}".splitlines()[0]
    timing.view = time.perf_counter() - started
    return ReadResult(metadata, None if image is None else out, errors, timing, tiles)


def decode(
    source: Callable[[], bytes] | bytes | Image.Image, *, apply_exif: bool = False, timing: Timing | None = None
) -> tuple[dict[str, Any], Image.Image | None]:
    """Decode one image; whatever is wrong with it becomes ``status`` "failed" with a reason, never a crash.

    Args:
        source: a file's content, or what reads it; or an image of any mode that Pillow opened or made elsewhere.
        apply_exif: turn the image as its EXIF orientation says.
        timing: gets the seconds.

    Returns:
        Its columns of the index, and the RGB image; None if it could not be decoded.
    """
    metadata: dict[str, Any] = dict(NO_METADATA)
    timing = timing or Timing()
    started = time.perf_counter()
    try:
        if callable(source):
            source = source()
    except Exception as error:  # remote stores and archives raise nearly anything
        return metadata | {"status": "failed", "error": f"{UNREAD}: {_refusal(error)}"}, None
    if isinstance(source, bytes):
        metadata["sha256"] = hashlib.sha256(source).hexdigest()
    read = time.perf_counter()
    try:
        with warnings.catch_warnings():  # what decoders warn of changes no pixel
            warnings.simplefilter("ignore")
            if isinstance(source, bytes):
                image = _from_bytes(source, metadata, apply_exif)
            else:
                image = _to_rgb(source, metadata, apply_exif)
    except Exception as error:  # decoders raise nearly anything on broken input
        return metadata | {"status": "failed", "error": _reason(error)}, None
    timing.read, timing.decode = read - started, time.perf_counter() - read
    return metadata | {"status": "ok"}, image


def _from_bytes(content: bytes, metadata: dict[str, Any], apply_exif: bool) -> Image.Image:
    if not content:
        raise EOFError("the file is empty")
    try:
        pixels = _open(content, metadata, apply_exif)
    except Exception:
        bare = without_metadata(content)
        if bare == content:
            raise
        pixels = _open(bare, metadata, apply_exif)
    check_png_pixels(content)
    return pixels


def _open(content: bytes, metadata: dict[str, Any], apply_exif: bool) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        return _to_rgb(image, metadata, apply_exif)


def _to_rgb(image: Image.Image, metadata: dict[str, Any], apply_exif: bool) -> Image.Image:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # a cut image must fail, whatever another library in the process set
    metadata |= {"format": _SAME_FORMAT.get(str(image.format), image.format), "mode": image.mode}
    metadata |= {"width": image.width, "height": image.height}
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
    metadata["jpeg_quality"] = _jpeg_quality(image)
    tiles = getattr(image, "tile", ())
    if image.format == "TIFF" and tiles and tiles[0].codec_name == "raw":  # Pillow leaves missing strips black
        listed = {tile.extents for tile in tiles if tile.offset}  # the same extents once a plane
        covered = sum((right - left) * (lower - upper) for left, upper, right, lower in listed)
        if covered < image.width * image.height:
            raise EOFError(f"strips hold {covered} of {image.width * image.height} pixels")
    pixels = image.convert("RGB")
    if apply_exif:
        with suppress(Exception):  # EXIF data that cannot be read turns nothing; Pillow raises nearly anything on it
            return ImageOps.exif_transpose(pixels)
    return pixels


def _reason(error: Exception) -> str:
    """Return ``kind: what the decoder said``, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return "no image: the content is of no format that is read"
    text = first_line(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {text}"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated: {text}"
    return f"damaged: {type(error).__name__}: {text}"


def _refusal(error: Exception) -> str:
    """Return why a file could not be read, in one line."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return first_line(error) if isinstance(error, DataError) else f"{type(error).__name__}: {first_line(error)}"


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
