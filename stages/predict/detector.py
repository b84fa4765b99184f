"""The detector in Python: ``Detector.load("detector.ltd").score(images)``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.extract.backbone import Backbone, feature_spec, load_backbone
from stages.extract.read_image import ReadSpec
from stages.extract.settings import ExtractSettings
from stages.extract.views import Recipe
from stages.predict.bundle import Bundle, read_bundle
from stages.predict.card import difference
from stages.predict.looks import Looks, Seen, see
from storage.errors import DataError, SettingError
from storage.sources import Sources
from storage.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stages.predict.looks import AnyImage
    from stages.predict.results import Prediction


class Detector:
    """A bundle with its backbone, ready to score.

    Args:
        bundle: the bundle.
        backbone: the backbone that its head reads.

    Raises:
        DataError: the backbone is another one than the head was trained on; the message names the settings.
    """

    def __init__(self, bundle: Bundle, backbone: Backbone) -> None:
        self.bundle, self.backbone = bundle, backbone
        self.card, self.calibration = bundle.card, bundle.card.calibration
        settings = ExtractSettings(backbone=backbone.card.name, taps=(self.card.tap,))
        differing = difference(self.card.spec, feature_spec(backbone, settings, self.job(Looks()), View("clean")))
        if differing:
            raise DataError(
                f"{bundle.source} does not fit the local backbone, where `here` is the bundle: {differing}; name the "
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
        spec = bundle.card.spec
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if spec.precision == "fp16" and place.type != "cuda":
            raise DataError(
                f"{bundle.source} was made for another precision: fp16 there, fp32 here (fp16 needs a CUDA device, and "
                "the two give different features); run it on a GPU, or train a head on features in fp32"
            )
        return cls(bundle, load_backbone(spec.backbone, weights=weights, precision=spec.precision, device=device))

    def score(
        self,
        images: Iterable[AnyImage],
        *,
        check: bool = False,
        tencrop: bool = False,
        batch: int | None = None,
    ) -> list[Prediction]:
        """Score images; the order is kept, and an image that cannot be read is a result with a reason.

        Args:
            images: several of PIL images, uint8 arrays (H, W), (H, W, 3) or (H, W, 4), paths of image files, or bytes:
                the content of a file. All are read as files are; names of results are those of paths alone.
            check: also score mild re-encodings and rescalings; a verdict that flips becomes "unsure".
            tencrop: the mean logit over ten crops.
            batch: forward passes of so many images; None for what suits the device. Changes nothing beyond rounding.

        Raises:
            SettingError: it is one image instead of several, or one of them is of another type.
        """
        several = isinstance(images, Iterable) and not isinstance(images, (str, bytes, os.PathLike))
        if not several or (isinstance(images, np.ndarray) and images.ndim < 4):
            raise SettingError(
                f"expected several images, found one {type(images).__name__}; put it in a list: score([x])"
            )
        looks = Looks(check, tencrop)
        job = self.job(looks)
        return list(self.predictions((see(image, job) for image in images), looks, batch))

    def job(self, looks: Looks) -> ReadSpec:
        """Return what readers of image files need to make the pixels of ``looks``."""
        recipe = Recipe(self.card.geometry, self.backbone.card.size)
        return ReadSpec(Sources.of("/"), looks.views, recipe, self.card.apply_exif)

    def predictions(self, seen: Iterable[Seen], looks: Looks, batch: int | None = None) -> Iterator[Prediction]:
        """Yield the results of images in their order; the first comes after one image, later ones in full batches.

        Args:
            seen: the images, read lazily; at most a batch of them is held.
            looks: which views their pixels are.
            batch: pictures a forward pass, all views counted; None for what suits the device.
        """
        most, now = max(1, (batch or self.backbone.auto_batch) // len(looks.views)), 1
        waiting: list[Seen] = []
        for one in seen:
            waiting.append(one)
            if len(waiting) >= now:
                yield from self._judged(waiting, looks)
                waiting, now = [], min(2 * now, most)
        yield from self._judged(waiting, looks)

    def _judged(self, waiting: list[Seen], looks: Looks) -> Iterator[Prediction]:
        logits = np.full((len(waiting), len(looks.views)), np.nan)
        pictures = [(at, view) for at, one in enumerate(waiting) for view in one.made]
        if pictures:
            pixels = np.stack([waiting[at].pixels[view] for at, view in pictures])  # type: ignore[index]
            logits[tuple(np.array(pictures).T)] = self.logits(self.features(pixels))
        cached = [at for at, one in enumerate(waiting) if one.features is not None]
        if cached:
            logits[cached, 0] = self.logits(np.stack([waiting[at].features for at in cached]))  # type: ignore[misc]
        for one, row in zip(waiting, logits, strict=True):
            yield looks.judge(one, row, self.calibration, self.bundle.identity)

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Return what the head reads of pixels (N, S, S, 3), rounded as features on disk are: (N, L', D) or (N, E).

        They are not finite where float16 cannot hold them: the row of that image says so, and the others go on.
        """
        tap = self.head.reads.tap
        with np.errstate(over="ignore"):
            stored = self.backbone.taps(pixels, [tap], self.head.reads.blocks)[tap].cpu().numpy().astype(np.float16)
        return stored if tap == "embedding" else stored.swapaxes(0, 1)

    @torch.inference_mode()
    def logits(self, features: NDArray[np.float16]) -> NDArray[np.float64]:
        """Return (N,) logits of features (N, L', D) or (N, E); not finite where an image's features are not."""
        logits: NDArray[np.float64] = self.head(self.tensor(features)).cpu().numpy().astype(np.float64)
        return logits

    def tensor(self, features: NDArray[np.float16]) -> torch.Tensor:
        """Return features as the head takes them: float32, on its device."""
        return torch.from_numpy(np.ascontiguousarray(features)).to(self.backbone.device).float()
