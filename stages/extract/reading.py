"""From a manifest row to the pixels of all views asked for, with one decode; what loader processes run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.extract.decode import Decoded, decode
from stages.extract.views import Recipe, apply_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from storage.sources import Sources
    from storage.views import View


@dataclass(frozen=True)
class Job:
    """What is the same for all images of a run.

    Attributes:
        sources: where the manifest's paths lead to.
        views: all views of the run.
        recipe: geometry, size and seed.
        apply_exif: turn pictures as their EXIF orientation says.
    """

    sources: Sources
    views: tuple[View, ...]
    recipe: Recipe
    apply_exif: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (V, S, S, 3) of the pixels of one image in all views."""
        return len(self.views), self.recipe.size, self.recipe.size, 3


@dataclass(frozen=True)
class Task:
    """One image to read: its path in the manifest, and the numbers of the views that want it."""

    path: str
    views: tuple[int, ...]


@dataclass
class Timing:
    """Where seconds went: reading, decoding and views in the loaders; the rest in the main process."""

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
class Read:
    """What reading one image gave.

    Attributes:
        facts: columns of the index.
        pixels: (V, S, S, 3) uint8, only the views of the task filled; None where the image could not be decoded. It may
            lie in shared memory: valid until the next image is asked for.
        view_errors: number of a view -> why it could not be made of this image.
        timing: where the time went.
    """

    facts: dict[str, Any]
    pixels: NDArray[np.uint8] | None
    view_errors: dict[int, str] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)


def read_image(job: Job, task: Task, out: NDArray[np.uint8]) -> Read:
    """Decode one image and write the pixels of its views into ``out`` (V, S, S, 3).

    A view that cannot be made of a decodable image (an encoder that refuses its size) is a failure of that view alone.
    """
    return make_views(decode(partial(job.sources.read, task.path), apply_exif=job.apply_exif), job, task, out)


def make_views(decoded: Decoded, job: Job, task: Task, out: NDArray[np.uint8]) -> Read:
    """Write the pixels of the views of a decoded image into ``out``; see :func:`read_image`."""
    started = time.perf_counter()
    errors = {}
    if decoded.image is not None:
        for number in task.views:
            try:
                out[number] = np.asarray(apply_view(decoded.image, job.views[number], job.recipe, task.path))
            except Exception as error:  # Pillow's encoders raise nearly anything; all of it is recorded
                errors[number] = f"view: {type(error).__name__}: {error}".splitlines()[0]
    timing = Timing(decoded.read_s, decoded.decode_s, time.perf_counter() - started)
    return Read(decoded.facts, None if decoded.image is None else out, errors, timing)
