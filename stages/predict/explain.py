"""Explain one verdict: what the image's class token does, which window was read, and what each branch added.

The page is one self-contained HTML file in the look of the report, without any request.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from stages.analyse.transitions import transitions
from stages.extract.views import THUMBNAIL_SIDE
from stages.heads.linear import LinearHead
from stages.heads.ltd import LtdHead
from stages.predict.detector import CHECKS, read_any
from stages.report import html
from stages.report.chart import Curve, common_scale, line_chart
from storage.atomic import write_text
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.heads.head import Head
    from stages.predict.detector import Detector
    from stages.predict.manifest import Bands, BundleManifest
    from stages.predict.results import Prediction

CONSTANT = "constant"
_CHECK = "mild"
_QUANTITIES = (
    ("cosine", "Cosine similarity between adjacent blocks", "cosine similarity", (-1.0, 1.0)),
    ("l2", "L2 distance between adjacent blocks", "L2 distance", (0.0, float("inf"))),
)
_PARTS = {
    "raw": "raw branch (the tokens)",
    "delta": "LTD branch (their differences)",
    "raw2": "raw branch of the second window",
    "delta2": "LTD branch of the second window",
    "embedding": "the final embedding",
    "pooled": "the image's token before the projection",
    "mean": "the mean of the patch tokens",
    CONSTANT: "constant of the classifier",
}


@dataclass(frozen=True, eq=False)
class Explanation:
    """What there is to say of one image.

    Attributes:
        prediction: the verdict, with the stability check.
        pixels: (S, S, 3) uint8, what the backbone saw; of tiles, the one with the greatest logit.
        size: width and height of the image.
        cosine: similarity of the class tokens after blocks k and k + 1, for each transition k of the backbone.
        l2: their distance.
        attention: block -> (P,) how the class token attends to the patches, mean over the heads, for the blocks that
            decide; empty where the backbone does not tell.
        windows: first and last block of each window that decides, or of all blocks that are read where the head chooses
            none; empty where it reads no blocks.
        parts: name -> what it adds to the logit; empty where the head has no parts.
    """

    prediction: Prediction
    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    cosine: list[float]
    l2: list[float]
    attention: dict[int, NDArray[np.float32]]
    windows: list[tuple[int, int]]
    parts: dict[str, float]


def run(*, detector: Detector, image: Path, out: Path) -> Explanation:
    """Write the page about one image, self-contained HTML, to ``out``.

    Raises:
        DataError: the image cannot be read.
    """
    explanation = explain(detector, image)
    write_text(out, _render(explanation, detector))
    return explanation


def explain(detector: Detector, image: Path) -> Explanation:
    """Return what there is to say of one image; see :func:`run`."""
    name, read = read_any(image, detector.read_spec(_CHECK, thumbnails=detector.tiles > 1))
    (prediction,) = detector.predictions([(name, read)], check=_CHECK)
    if read.pixels is None or prediction.verdict is None:
        raise DataError(f"{name} cannot be explained: {prediction.error}")
    tiles = list(prediction.tile_logits.values())
    shown = max(range(len(tiles)), key=tiles.__getitem__, default=0)
    pixels, head = read.pixels[shown : shown + 1], detector.head
    card = detector.backbone.card
    taps = ["cls"] if card.patches is None else ["cls", "attention"]
    found = detector.backbone.taps(pixels, taps, range(card.blocks))  # (L, 1, D), and (L, 1, P)
    moved = transitions(found["cls"].cpu().numpy().swapaxes(0, 1), range(card.blocks))[0]  # (T, 2)
    windows = [head.reads.blocks] if head.reads.blocks else []
    if isinstance(head, LtdHead):
        windows = [head.reads.blocks[start : start + head.window] for start in head.starts()]
    attention = {}
    if "attention" in found:
        maps = found["attention"][:, 0].cpu().numpy()
        attention = {block: maps[block] for window in windows for block in window}
    return Explanation(
        prediction=prediction,
        pixels=pixels[0],
        size=(read.metadata["width"], read.metadata["height"]),
        cosine=moved[:, 0].tolist(),
        l2=moved[:, 1].tolist(),
        attention=attention,
        windows=[(window[0], window[-1]) for window in windows],
        parts={part: float(values[0]) for part, values in contributions(head, detector.features(pixels)).items()},
    )


@torch.inference_mode()
def contributions(head: Head, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return part -> (N,) what it adds to the logit; the parts sum to the logit. Empty for heads that are no such sum.

    A linear probe is a sum over its blocks, or over the embedding, as it is. LTD ends in a LayerNorm over the joined
    outputs of its branches and a linear layer: with the mean and deviation of this image held fixed, the logit is a sum
    over coordinates, and a branch's part is the sum over its own. Mean and deviation are of both branches together, so
    a part does not say what the logit would be without the other.

    Args:
        head: in eval mode.
        features: (N, L', D) or (N, E) float32.
    """
    if isinstance(head, LinearHead):
        weight = head.classifier.weight.view(-1, head.feature_shape[-1])  # (L', D), or (1, E)
        names = [f"block {block}" for block in head.reads.blocks] or [head.reads.tap]
        parts = (features.view(len(features), *weight.shape) * weight).sum(2)  # (N, L')
        constant: torch.Tensor = head.classifier.bias
    elif isinstance(head, LtdHead):
        names = list(head.branches)
        joined = head.joined(features)  # (N, B D), the branches' outputs side by side
        normed = torch.nn.functional.layer_norm(joined, joined.shape[1:], eps=head.norm.eps)
        weight = head.classifier.weight[0]  # (B D,)
        parts = (normed * head.norm.weight * weight).view(len(joined), len(names), -1).sum(2)  # (N, B)
        constant = (head.norm.bias * weight).sum() + head.classifier.bias
    else:
        return {}
    return {**dict(zip(names, parts.unbind(1), strict=True)), CONSTANT: constant.expand(len(features))}


def _render(explanation: Explanation, detector: Detector) -> str:
    """Return the page's HTML; the same explanation gives the same bytes."""
    manifest = detector.manifest
    thumbnail = explanation.prediction.thumbnail
    context = {
        "thumbnail": None if thumbnail is None else _png(thumbnail),
        "tiles": list(_tiles(explanation, manifest)),
        "prediction": explanation.prediction,
        "picture": _png(explanation.pixels),
        "attention": [(block, _png(_shades(weights))) for block, weights in explanation.attention.items()],
        "side": explanation.pixels.shape[0],
        "manifest": manifest,
        "identity": detector.bundle.identity,
        "windows": explanation.windows,
        "charts": list(_charts(explanation, manifest.bands)),
        "parts": list(_parts(explanation, manifest)),
        "warning": detector.warning,
        "views": ", ".join(CHECKS[_CHECK]),
    }
    return html.render("explain.html.j2", context, package="stages.predict", styles=("report.css", "explain.css"))


def _png(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as an address that holds all of it."""
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    return f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"


def _shades(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(P,) attention -> (side, side) grey, white where it is greatest."""
    side = math.isqrt(len(weights))
    shades: NDArray[np.uint8] = (255 * weights / weights.max()).round().astype(np.uint8).reshape(side, side)
    return shades


def _tiles(explanation: Explanation, manifest: BundleManifest) -> Iterator[dict[str, Any]]:
    """The tiles in pixels of the thumbnail, which has the whole image in its middle; the last one is the hottest."""
    factor, side = THUMBNAIL_SIDE / max(explanation.size), explanation.pixels.shape[0]
    left, top = ((THUMBNAIL_SIDE - length * factor) / 2 for length in explanation.size)
    for (x, y), logit in sorted(explanation.prediction.tile_logits.items(), key=lambda item: item[1]):
        (probability,) = manifest.calibration.probabilities(np.array([logit])).tolist()
        place = {"x": left + x * factor, "y": top + y * factor, "side": side * factor}
        yield place | {"corner": (x, y), "logit": logit, "probability": probability}


def _charts(explanation: Explanation, bands: Bands | None) -> Iterator[dict[str, Any]]:
    """A figure per quantity: the image's curve, over the bands of the training corpus where the bundle has them."""
    for name, title, unit, limits in _QUANTITIES:
        own: list[float] = getattr(explanation, name)
        x: Sequence[int] = range(len(own)) if bands is None else bands.transitions
        curves = []
        if bands is not None:
            for kind, label, of_class in (("real", "real images", bands.real), ("fake", "synthetic", bands.synthetic)):
                band = getattr(of_class, name)
                curves.append(Curve(kind, label, x, band.mean, band.std))
        curves.append(Curve("image", "this image", x, [own[k] for k in x], [None] * len(x)))
        inside = [[k for k in x if first <= k < last] for first, last in explanation.windows]
        chart = line_chart(
            title, curves, x_label="transition k (block k to block k + 1)", y_label=unit,
            x_scale=(x[0], max(x[-1], x[0] + 1)), y_scale=common_scale(curves, limits), limits=limits,
            shaded=[(part[0] - 0.5, part[-1] + 0.5) for part in inside if part],
        )  # fmt: skip
        yield {"title": title, "chart": chart}


def _parts(explanation: Explanation, manifest: BundleManifest) -> Iterator[dict[str, Any]]:
    bands = manifest.bands
    for name, value in explanation.parts.items():
        classes = (
            [None, None] if bands is None else [each.contributions.get(name) for each in (bands.real, bands.synthetic)]
        )
        yield {"name": _PARTS.get(name, name), "value": value, "classes": classes}
