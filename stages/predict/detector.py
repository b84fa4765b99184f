"""The detector in Python: ``Detector.load("detector.ltd").score(images)``."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from stages.extract.backbone import Backbone, feature_spec, load_backbone
from stages.extract.read_image import ReadResult, ReadSpec, Task, read_image
from stages.extract.settings import ExtractSettings
from stages.extract.views import THUMBNAIL_SIDE, Recipe
from stages.predict.bundle import Bundle, read_bundle
from stages.predict.inputs import spelled
from stages.predict.likeness import last_features
from stages.predict.manifest import REAL, SYNTHETIC, UNSURE, Calibration
from stages.predict.results import Prediction
from storage.errors import DataError, SettingError
from storage.names import printable, to_path, to_text
from storage.sources import Sources
from storage.spec import image_axis
from storage.views import WEB, View, expand_views

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    AnyImage = Image.Image | NDArray[np.uint8] | str | os.PathLike[str] | bytes
    _Forwarded = tuple[torch.Tensor, torch.Tensor]

# What an image meets on its way through platforms: changes that a sound verdict survives, and those that are usual.
CHECKS = {"mild": ("jpeg:95", "jpeg:85", "webp:90", "scale:0.9", "scale:1.1"), "web": WEB}
RANDOM_WEIGHTS = "the backbone has random weights: fit for the demo, but verdicts on other pictures mean nothing"
_MAX_MESSAGE = 500  # of what a file states
_CLIPPED_MODES = ("I", "F")  # and "I;16", "I;16B": more than 8 bits of grey


class Detector:
    """A bundle with its backbone, ready to score; ``warning`` says so where the backbone's weights are random.

    Raises:
        DataError: the backbone is another one than the head was trained on; the message names the settings.
    """

    def __init__(self, bundle: Bundle, backbone: Backbone) -> None:
        self.bundle, self.backbone = bundle, backbone
        self.warning = RANDOM_WEIGHTS if bundle.manifest.random_weights else None
        self.manifest, self.calibration = bundle.manifest, bundle.manifest.calibration
        self.tiles, self._side = self.manifest.tiles or 1, backbone.card.size
        settings = ExtractSettings(backbone=backbone.card.name, taps=(self.manifest.tap,))
        local = feature_spec(backbone, settings, self.read_spec().recipe, View("clean"))
        stored: dict[str, Any] = {"taps": (), "stored_blocks": (), "patches": None}  # these may differ
        difference = printable(replace(self.manifest.spec, **stored).difference(replace(local, **stored)))
        if difference:
            cut = difference[:_MAX_MESSAGE] + "..." * (len(difference) > _MAX_MESSAGE)
            raise DataError(
                f"{bundle.source} does not fit the local backbone, where `here` is the bundle: {cut}; name the "
                "weights it was made with in --weights, or make a bundle from a head trained on this backbone"
            )
        self.head = bundle.head.to(backbone.device)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, weights: str = "default", device: str | None = None) -> Detector:
        """Load a bundle and the backbone it needs.

        Args:
            path: the bundle file, made by ``ltdpipe bundle``.
            weights: of the backbone: "default" (downloaded where they are not here), "random:SEED" or a local file.
                A bundle names the hash of its backbone's weights, and never a place to read them from.
            device: where it runs; None for the best at hand.

        Raises:
            DataError: the bundle is damaged, or the backbone is another one than it was made for.
            SettingError: a precision or weights setting cannot be used here.
            ResourceError: the backbone's weights can neither be found nor downloaded.
        """
        bundle = read_bundle(Path(path))
        spec = bundle.manifest.spec
        kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
        if spec.precision == "fp16" and kind != "cuda":
            raise DataError(
                f"{bundle.source} was made for another precision: fp16 there, fp32 here (fp16 needs a CUDA device, and "
                "the two give different features); run it on a GPU, or train a head on features in fp32"
            )
        backbone = load_backbone(spec.backbone, weights=weights, precision=spec.precision, device=device)
        return cls(bundle, backbone)

    def score(
        self, images: Iterable[AnyImage], *, check: bool | str = False, batch: int | None = None
    ) -> list[Prediction]:
        """Score images; the order is kept, and an image that cannot be read is a result with a reason.

        Args:
            images: several of PIL images, uint8 arrays (H, W), (H, W, 3) or (H, W, 4), paths of image files, or bytes:
                the content of a file. All are read as files are; names of results are those of paths alone.
            check: also score other views of each image, "mild" (or True) or "web"; a verdict that flips becomes
                "unsure".
            batch: pictures a forward pass; None for what suits the device. Changes nothing beyond rounding.

        Raises:
            SettingError: it is one image instead of several, one of them is of another type, or no such check is known.
        """
        several = isinstance(images, Iterable) and not isinstance(images, (str, bytes, os.PathLike))
        if not several or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise SettingError(
                f"expected several images, found one {type(images).__name__}; put it in a list: score([x])"
            )
        chosen = {True: "mild", False: None}.get(check, check) if isinstance(check, bool) else check
        if chosen is not None and chosen not in CHECKS:
            raise SettingError(f"no check is called {chosen!r}; choose from {', '.join(CHECKS)}")
        spec = self.read_spec(chosen)
        return list(self.predictions((read_any(image, spec) for image in images), check=chosen, batch=batch))

    def read_spec(self, check: str | None = None, *, thumbnails: bool = False) -> ReadSpec:
        """Return how image files are read, the plain view first; their paths are relative to ``/``."""
        views = expand_views(["clean", *CHECKS.get(check or "", ())])
        if self.tiles > 1:
            views = tuple(View("tiles", at, view.steps, most=self.tiles) for view in views for at in range(self.tiles))
        views += (View("thumbnail"),) if thumbnails else ()
        recipe = Recipe(self.manifest.geometry, self.backbone.card.size, apply_exif=self.manifest.apply_exif)
        return ReadSpec(Sources.of("/"), views, recipe)

    def name(self, check: str | None) -> str:
        """Return what results call this detector."""
        return self.bundle.identity + {None: "", "mild": "+check"}.get(check, f"+check-{check}")

    def predictions(
        self, reads: Iterable[tuple[str | None, ReadResult]], *, check: str | None = None, batch: int | None = None
    ) -> Iterator[Prediction]:
        """Yield the results of images in their order; the first comes after one image, later ones in full batches.

        On a GPU a batch is handed over before the results of the one before are waited for.

        Args:
            reads: name of each image and what reading it gave; taken lazily, and at most two batches are held.
            check: the check in whose views they were read; a view more is a thumbnail.
            batch: pictures a forward pass, all views counted; None for what suits the device.
        """
        pictures = self.tiles * (1 + len(CHECKS.get(check or "", ())))
        limit, size = max(1, (batch or self.backbone.auto_batch) // pictures), 1
        waiting: list[tuple[str | None, ReadResult]] = []
        running: deque[tuple[list[tuple[str | None, ReadResult]], _Forwarded | None]] = deque()
        for name, read in reads:
            # a reader uses the place of its pixels again
            waiting.append((name, read if read.pixels is None else replace(read, pixels=read.pixels.copy())))
            if len(waiting) >= size:
                running.append((waiting, self._forward(waiting, pictures)))
                waiting, size = [], min(2 * size, limit)
                if self.backbone.device.type == "cpu" or len(running) > 1:
                    yield from self._results(*running.popleft(), check)
        running.append((waiting, self._forward(waiting, pictures)))
        for started in running:
            yield from self._results(*started, check)

    def features(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Return what the head reads of pixels (N, S, S, 3): (N, L', D) or (N, E) float32, on the device.

        Values are rounded to float16 as in features on disk; they are infinite where float16 cannot hold them.
        """
        tap = self.head.reads.tap
        stored = self.backbone.taps(pixels, [tap], self.head.reads.blocks)[tap].half()
        return (stored if image_axis(tap) == 0 else stored.transpose(0, 1)).float().contiguous()

    @torch.inference_mode()
    def _forward(self, reads: list[tuple[str | None, ReadResult]], most: int) -> _Forwarded | None:
        """Return logits and last features of a batch's pictures, image by image and view by view; None without any."""
        pictures = [read.pixels[at] for _, read in reads if read.pixels is not None for at in self._made(read, most)]
        return last_features(self.head, self.features(np.stack(pictures))) if pictures else None

    def _made(self, read: ReadResult, most: int) -> list[int]:
        """Return the numbers of the first ``most`` pictures that there are, without tiles that repeat others."""
        wanted = range(most) if self.tiles == 1 else sorted(read.tiles)
        return [] if read.pixels is None else [at for at in wanted if at not in read.view_errors]

    def _results(
        self, reads: list[tuple[str | None, ReadResult]], forwarded: _Forwarded | None, check: str | None
    ) -> Iterator[Prediction]:
        given = iter(() if forwarded is None else zip(forwarded[0].double().tolist(), forwarded[1].cpu(), strict=True))
        views = CHECKS.get(check or "", ())
        for name, read in reads:
            logits_of = np.full((1 + len(views), self.tiles), -np.inf)  # views x tiles
            last = None
            for at in self._made(read, logits_of.size):
                logits_of.flat[at], features = next(given)
                last = features.numpy() if at == 0 else last
            error = read.metadata["error"] or next(iter(read.view_errors.values()), None)
            result = self._compared(to_prediction(logits_of.max(axis=1), self.calibration, views, error), last)
            tiles = {corner: float(logits_of[0, at]) for at, corner in read.tiles.items() if at < self.tiles}
            yield replace(
                result,
                path=name,
                detector=self.name(check),
                note=note_on(read.metadata, self._side, result.note, len(tiles)) if result.verdict else None,
                tile_logits=tiles if result.verdict else {},
                thumbnail=_thumbnail(read, logits_of.size),
            )

    def _compared(self, result: Prediction, last: NDArray[np.float32] | None) -> Prediction:
        """Return the result with how like the calibration's images the image is, where the bundle holds some."""
        reference = self.bundle.reference
        if reference is None or last is None or result.logit is None:
            return result
        ranks = reference.ranks(last[None])
        compared = replace(result, likeness=float(ranks[0]), features=last)
        if reference.outside(ranks)[0]:
            return replace(compared, verdict=UNSURE, note="unlike every image of the calibration")
        return compared


def to_prediction(
    logits: NDArray[np.float64], calibration: Calibration, views: Sequence[str] = (), error: str | None = None
) -> Prediction:
    """Return what is said of one image.

    Args:
        logits: (1 + V,) of its plain view and of the V views of the check; not finite where a view could not be made,
            or the features are not.
        calibration: how logits are read.
        views: names of the views of the check.
        error: why the image, or a view of it, could not be read.
    """
    if not np.isfinite(logits[0]):
        reason = error or "features: the backbone gives values for it that are not finite"
        return Prediction(status="failed", error=reason)
    made = np.isfinite(logits)
    probabilities, verdicts = calibration.probabilities(logits[made]), calibration.verdicts(logits[made])
    opposite = {REAL: SYNTHETIC, SYNTHETIC: REAL}.get(verdicts[0])
    names = compress(("", *views), made)
    flipped = " ".join(name for name, word in zip(names, verdicts, strict=True) if word == opposite)
    return Prediction(
        status="ok",
        verdict=UNSURE if flipped else verdicts[0],
        probability=float(probabilities[0]),
        synthetic_above=calibration.synthetic_above,
        logit=float(logits[0]),
        error=error,
        spread=float(probabilities.max() - probabilities.min()) if views else None,
        flipped=flipped if views else None,
    )


def note_on(metadata: dict[str, Any], side: int, note: str | None = None, tiles: int = 0) -> str | None:
    """Return what of an image makes its verdict less sure; ``tiles``: 0 where it was read in one picture."""
    notes = [note] if note else []
    if metadata["mode"].startswith(_CLIPPED_MODES):
        notes.append("more than 8 bits of grey: brighter than 255 became white")
    width, height = metadata["width"], metadata["height"]
    if min(width, height) < side:
        notes.append(f"only {width} x {height} pixels, the backbone sees {side} x {side}")
    needed = math.ceil(width / side) * math.ceil(height / side)
    if 0 < tiles < needed:
        notes.append(f"{tiles} tiles show {tiles * side * side / (width * height):.0%} of it, all would be {needed}")
    return "; ".join(notes) or None


def task_of(name: str, spec: ReadSpec) -> Task:
    """Return the task of reading a file or member of an archive, by its spelled name, in all views of a spec."""
    path = os.path.join(Path.cwd(), to_path(name))  # noqa: PTH118 - names may hold bytes that are not UTF-8
    return Task(to_text(path).lstrip("/"), tuple(range(len(spec.views))))


def _thumbnail(read: ReadResult, view: int) -> NDArray[np.uint8] | None:
    """Return the pixels of the thumbnail, view number ``view``; None where it was not asked for."""
    if read.pixels is None or view == len(read.pixels):
        return None
    return read.pixels[view, :THUMBNAIL_SIDE, :THUMBNAIL_SIDE]


def read_any(image: AnyImage, spec: ReadSpec) -> tuple[str | None, ReadResult]:
    """Read one image from memory or from a file; return its name, where it has one, and what reading it gave."""
    out = np.zeros(spec.shape, np.uint8)
    if isinstance(image, (str, os.PathLike)):
        name = spelled(os.fsdecode(image))
        return name, read_image(spec, task_of(name, spec), out)
    source = image if isinstance(image, (bytes, Image.Image)) else _from_array(image)
    return None, read_image(spec, Task("", tuple(range(len(spec.views)))), out, source)


def _from_array(array: object) -> Image.Image:
    if not isinstance(array, np.ndarray):
        raise SettingError(
            f"expected PIL images, uint8 arrays, paths or bytes of image files, found {type(array).__name__}"
        )
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})
    if array.dtype != np.uint8 or not is_image or 0 in array.shape:
        raise SettingError(
            f"expected an array (H, W), (H, W, 3) or (H, W, 4) of uint8, found {array.shape} of {array.dtype}; scale "
            "it to 0..255 and convert"
        )
    return Image.fromarray(array)
