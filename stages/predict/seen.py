"""One image on its way to the backbone: its pixels in all views, or why there are none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stages.extract.reading import Job, Read, Task, read_image
from stages.extract.views import Recipe, apply_view
from storage import names
from storage.errors import SettingError
from storage.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stages.predict.looks import Looks


@dataclass(frozen=True)
class Seen:
    """One image.

    Attributes:
        path: its name in the results.
        pixels: (V, S, S, 3) uint8; None where it could not be read, or where ``features`` are known.
        error: why it, or one of its views, could not be read.
        lacking: numbers of the views that could not be made.
        features: what the head reads of it, (L', D) or (E,), where it was cached.
    """

    path: str | None
    pixels: NDArray[np.uint8] | None = None
    error: str | None = None
    lacking: frozenset[int] = frozenset()
    features: NDArray[np.float16] | None = None

    def made(self, views: int) -> list[int]:
        """Return the numbers of the views that there are pixels of."""
        return [] if self.pixels is None else [view for view in range(views) if view not in self.lacking]


def job_of(looks: Looks, recipe: Recipe, *, apply_exif: bool) -> Job:
    """Return what readers of files need; their paths are those of :func:`task_of`."""
    return Job(Sources.of("/"), looks.views, recipe, apply_exif)


def task_of(name: str, job: Job) -> Task:
    """Return the task of reading one file, or one member of an archive, in all views of ``job``.

    Args:
        name: as text of :mod:`storage.names`, relative to the working directory or absolute.
        job: what is the same for all files.
    """
    path = os.path.join(Path.cwd(), names.to_path(name))  # noqa: PTH118 - names may hold bytes that are not UTF-8
    return Task(names.to_text(path).lstrip("/"), tuple(range(len(job.views))))


def seen_of(name: str, read: Read) -> Seen:
    """Return what a reader gave; the pixels are copied, since a reader uses their place again."""
    if read.pixels is None:
        return Seen(name, error=read.facts["error"])
    return Seen(name, np.array(read.pixels), *_faults(read.view_errors))


def see(image: Image.Image | NDArray[np.uint8] | str | os.PathLike[str], job: Job) -> Seen:
    """Read one image from memory or from a file.

    Raises:
        SettingError: it is neither an image, nor an array of one, nor a path.
    """
    out = np.zeros(job.shape, np.uint8)
    if isinstance(image, (str, os.PathLike)):
        name = names.to_text(os.fspath(image))
        return seen_of(name, read_image(job, task_of(name, job), out))
    rgb = image.convert("RGB") if isinstance(image, Image.Image) else _from_array(image)
    errors = {}
    for number, view in enumerate(job.views):
        try:
            out[number] = np.asarray(apply_view(rgb, view, job.recipe, ""))
        except Exception as error:  # Pillow's encoders raise nearly anything on odd sizes; the row says so
            errors[number] = f"view: {type(error).__name__}: {error}".splitlines()[0]
    return Seen(None, out, *_faults(errors))


def _from_array(array: object) -> Image.Image:
    if not isinstance(array, np.ndarray):
        raise SettingError(f"expected PIL images, uint8 arrays or paths, found {type(array).__name__}")
    grey = array.ndim == 2
    colour = array.ndim == 3 and array.shape[2] in {3, 4}
    if array.dtype != np.uint8 or not (grey or colour) or 0 in array.shape:
        raise SettingError(
            f"expected an array (H, W), (H, W, 3) or (H, W, 4) of uint8, found {array.shape} of {array.dtype}; scale "
            "it to 0..255 and convert"
        )
    return Image.fromarray(array).convert("RGB")


def _faults(errors: Mapping[int, str]) -> tuple[str | None, frozenset[int]]:
    return next(iter(errors.values()), None), frozenset(errors)
