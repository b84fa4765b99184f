"""How a detector looks at an image: in which views, what their pixels are, and how their logits become one result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stages.extract.read_image import ReadResult, Task, decode, decode_opened, make_views, read_image
from stages.predict.calibration import REAL, SYNTHETIC, UNSURE
from stages.predict.inputs import image_file, spelled
from stages.predict.results import Prediction
from storage import names
from storage.errors import SettingError
from storage.views import View, expand_views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stages.extract.read_image import ReadSpec
    from stages.predict.calibration import Calibration

    AnyImage = Image.Image | NDArray[np.uint8] | str | os.PathLike[str] | bytes

# Mild changes that an image meets on its way through platforms; a sound verdict survives them.
CHECK_VIEWS = ("jpeg:95", "jpeg:85", "webp:90", "scale:0.9", "scale:1.1")


@dataclass(frozen=True)
class Seen:
    """One image on its way to the backbone.

    Attributes:
        path: its name in the results; None for one that came from memory.
        pixels: (V, S, S, 3) uint8; None where it could not be read, or where ``features`` are known.
        made: numbers of the views that there are pixels of.
        features: what the head reads of it, (L', D) or (E,), where it was cached.
        error: why it, or one of its views, could not be read.
    """

    path: str | None
    pixels: NDArray[np.uint8] | None = None
    made: tuple[int, ...] = ()
    features: NDArray[np.float16] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Looks:
    """Which views are scored and how their logits become one result.

    Attributes:
        check: whether the stability check is made.
        tencrop: whether the logit is the mean over ten crops.
    """

    check: bool = False
    tencrop: bool = False

    def __post_init__(self) -> None:
        if self.check and self.tencrop:
            raise SettingError("--check and --tta cannot be combined; choose one")

    @property
    def views(self) -> tuple[View, ...]:
        """The views of every image, the plain one first where there is one."""
        if self.tencrop:
            return expand_views(["tencrop"])
        return expand_views(["clean", *(CHECK_VIEWS if self.check else ())])

    def named(self, detector: str) -> str:
        """Return what results call a detector that looks like this."""
        return f"{detector}+tencrop" if self.tencrop else f"{detector}+check" if self.check else detector

    def judge(self, seen: Seen, logits: NDArray[np.float64], calibration: Calibration, detector: str) -> Prediction:
        """Return the result of one image.

        Args:
            seen: the image.
            logits: (V,) of its views; NaN where a view could not be made of it, or its features are not finite.
            calibration: how logits are read.
            detector: identity of the bundle.
        """
        name = self.named(detector)
        if not np.isfinite(logits if self.tencrop else logits[:1]).all():
            reason = seen.error or "features: the backbone gives values for it that are not finite"
            return Prediction(path=seen.path, status="failed", error=reason, detector=name)
        logit = float(logits.mean() if self.tencrop else logits[0])
        (verdict,) = calibration.verdicts(np.array([logit]))
        spread = flipped = None
        if self.check:
            made = np.flatnonzero(np.isfinite(logits))
            probabilities = calibration.probabilities(logits[made])
            spread = float(probabilities.max() - probabilities.min())
            opposite = {REAL: SYNTHETIC, SYNTHETIC: REAL}.get(verdict)
            verdicts = calibration.verdicts(logits[made])
            flipped = " ".join(CHECK_VIEWS[at - 1] for at, word in zip(made, verdicts, strict=True) if word == opposite)
        return Prediction(
            path=seen.path,
            status="ok",
            verdict=UNSURE if flipped else verdict,
            probability=float(calibration.probabilities(np.array([logit]))[0]),
            synthetic_above=calibration.synthetic_above,
            logit=logit,
            error=seen.error,
            detector=name,
            spread=spread,
            flipped=flipped,
        )


def task_of(name: str, job: ReadSpec) -> Task:
    """Return the task of reading one file, or member of an archive, in all views of a job that begins at the root.

    ``name`` is text of :mod:`storage.names`, relative to the working directory or absolute.
    """
    path = os.path.join(Path.cwd(), names.to_path(name))  # noqa: PTH118 - names may hold bytes that are not UTF-8
    return Task(names.to_text(path).lstrip("/"), tuple(range(len(job.views))))


def seen_of(name: str | None, read: ReadResult) -> Seen:
    """Return what a reader gave; the pixels are copied, since a reader uses their place again."""
    if read.pixels is None:
        return Seen(name, error=read.metadata["error"])
    made = tuple(number for number in range(len(read.pixels)) if number not in read.view_errors)
    return Seen(name, np.array(read.pixels), made, error=next(iter(read.view_errors.values()), None))


def see(image: AnyImage, job: ReadSpec) -> Seen:
    """Read one image from memory or from a file.

    Raises:
        SettingError: it is neither an image, nor an array of one, nor a path, nor the content of a file.
    """
    out = np.zeros(job.shape, np.uint8)
    if isinstance(image, (str, os.PathLike)):
        path = os.fsdecode(image)
        name, error = spelled(path), None
        if "!/" not in path:  # a member of an archive is no file
            error = image_file(path).error
        return seen_of(name, read_image(job, task_of(name, job), out)) if error is None else Seen(name, error=error)
    if isinstance(image, bytes):
        decoded = decode(lambda: image, apply_exif=job.apply_exif)
    else:
        opened = image if isinstance(image, Image.Image) else _from_array(image)
        decoded = decode_opened(opened, apply_exif=job.apply_exif)
    return seen_of(None, make_views(decoded, job, Task("", tuple(range(len(job.views)))), out))


def _from_array(array: object) -> Image.Image:
    if not isinstance(array, np.ndarray):
        raise SettingError(
            f"expected PIL images, uint8 arrays, paths or bytes of image files, found {type(array).__name__}"
        )
    grey = array.ndim == 2
    colour = array.ndim == 3 and array.shape[2] in {3, 4}
    if array.dtype != np.uint8 or not (grey or colour) or 0 in array.shape:
        raise SettingError(
            f"expected an array (H, W), (H, W, 3) or (H, W, 4) of uint8, found {array.shape} of {array.dtype}; scale "
            "it to 0..255 and convert"
        )
    return Image.fromarray(array)
