"""The detector in Python: ``Detector.load("detector.ltd").score(images)``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.extract.backbone import Backbone, load_backbone
from stages.extract.settings import ExtractSettings
from stages.extract.view_names import View
from stages.extract.views import Recipe, feature_spec
from stages.predict.bundle import Bundle, read_bundle
from stages.predict.card import difference
from stages.predict.looks import Looks
from stages.predict.prediction import Prediction
from stages.predict.seen import Seen, job_of, see
from storage.errors import DataError
from storage.rounding import to_stored

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from PIL import Image

    from stages.extract.reading import Job
    from storage.spec import FeatureSpec


__all__ = ["Detector", "Prediction"]


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
        self.recipe = Recipe(self.card.geometry, backbone.card.size)
        differing = difference(self.card.features, self.local_spec())
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
        spec = bundle.card.features
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if spec.precision == "fp16" and place.type != "cuda":
            raise DataError(
                f"{bundle.source} was made for another precision: fp16 there, fp32 here (fp16 needs a CUDA device, and "
                "the two give different features); run it on a GPU, or train a head on features in fp32"
            )
        return cls(bundle, load_backbone(spec.backbone, weights=weights, precision=spec.precision, device=device))

    def score(
        self,
        images: Iterable[Image.Image | NDArray[np.uint8] | str | os.PathLike[str]],
        *,
        check: bool = False,
        tencrop: bool = False,
        batch: int | None = None,
    ) -> list[Prediction]:
        """Score images; the order is kept, and an image that cannot be read is a result with a reason.

        Args:
            images: PIL images, uint8 arrays (H, W), (H, W, 3) or (H, W, 4), or paths of image files.
            check: also score mild re-encodings and rescalings; a verdict that flips becomes "unsure".
            tencrop: the mean logit over ten crops.
            batch: forward passes of so many images; None for what suits the device. Changes nothing beyond rounding.

        Raises:
            SettingError: an array is no image.
        """
        looks = Looks(check, tencrop)
        job = self.job(looks)
        return list(self.predictions((see(image, job) for image in images), looks, batch))

    def job(self, looks: Looks) -> Job:
        """Return what readers of image files need to make the pixels of ``looks``."""
        return job_of(looks, self.recipe, apply_exif=self.card.apply_exif)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return (N,) logits of pixels (N, S, S, 3); NaN for an image whose features are not finite."""
        return self.logits_of(self.stored_features(pixels))

    def stored_features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Return what the head reads of pixels (N, S, S, 3), rounded as features on disk are: (N, L', D) or (N, E)."""
        reads = self.head.reads
        values = self.backbone.taps(pixels, [reads.tap], reads.blocks)[reads.tap].cpu().numpy()
        by_block = reads.tap != "embedding"
        try:
            stored = to_stored(values, [""] * len(pixels), reads.tap)
        except DataError:  # one image of the batch; its row says so, and the others go on
            with np.errstate(over="ignore"):
                stored = values.astype(np.float16)
        return stored.swapaxes(0, 1) if by_block else stored

    @torch.inference_mode()
    def logits_of(self, features: NDArray[np.float16]) -> NDArray[np.float64]:
        """Return (N,) logits of stored features (N, L', D) or (N, E)."""
        values = torch.from_numpy(np.ascontiguousarray(features)).to(self.backbone.device).float()
        logits: NDArray[np.float64] = self.head(values).cpu().numpy().astype(np.float64)
        return np.where(np.isfinite(logits), logits, np.nan)

    def local_spec(self) -> FeatureSpec:
        """Return the settings of the features that this backbone and this code would make for the bundle's head."""
        settings = ExtractSettings(
            backbone=self.backbone.card.name, taps=(self.card.tap,), apply_exif=self.card.apply_exif
        )
        return feature_spec(self.backbone, settings, self.job(Looks()), View("clean"))

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
                yield from self._judge(waiting, looks)
                waiting, now = [], min(2 * now, most)
        yield from self._judge(waiting, looks)

    def _judge(self, waiting: list[Seen], looks: Looks) -> Iterator[Prediction]:
        logits = np.full((len(waiting), len(looks.views)), np.nan)
        pictures = [(at, view) for at, one in enumerate(waiting) for view in one.made(len(looks.views))]
        if pictures:
            pixels = np.stack([waiting[at].pixels[view] for at, view in pictures])  # type: ignore[index]
            logits[tuple(np.array(pictures).T)] = self.logits(pixels)
        cached = [at for at, one in enumerate(waiting) if one.features is not None]
        if cached:
            logits[cached, 0] = self.logits_of(np.stack([waiting[at].features for at in cached]))  # type: ignore[misc]
        for one, row in zip(waiting, logits, strict=True):
            yield self._result(one, row, looks)

    def _result(self, one: Seen, logits: NDArray[np.float64], looks: Looks) -> Prediction:
        detector = f"{self.bundle.identity}{looks.suffix}"
        if not np.isfinite(logits if looks.tencrop else logits[:1]).all():
            reason = one.error or "features: the backbone gives values for it that are not finite"
            return Prediction(path=one.path, status="failed", error=reason, detector=detector)
        logit, probability, verdict, spread, flipped = looks.judge(logits, self.calibration)
        return Prediction(
            path=one.path,
            status="ok",
            verdict=verdict,
            probability=probability,
            logit=logit,
            error=one.error,
            detector=detector,
            spread=spread,
            flipped=flipped,
        )
