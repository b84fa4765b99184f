"""Explain one verdict: what the image's class token does, which window was read, and what each branch added.

The page is one self-contained HTML file in the look of the report, without any request.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from stages.analyse.transitions import transitions
from stages.heads.ltd import LtdHead
from stages.predict.contributions import CONSTANT, EMBEDDING, contributions
from stages.predict.detector import CHECK_VIEWS, read_any
from stages.report import html
from stages.report.chart import Chart, Line
from stages.report.figures import Curve, band_chart, common_scale
from storage.atomic import write_text
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from stages.predict.detector import Detector
    from stages.predict.manifest import Bands, BundleManifest
    from stages.predict.results import Prediction

_QUANTITIES = (
    ("cosine", "Cosine similarity between adjacent blocks", "cosine similarity", (-1.0, 1.0)),
    ("l2", "L2 distance between adjacent blocks", "L2 distance", (0.0, float("inf"))),
)
_PARTS = {
    "raw": "raw branch (the tokens)",
    "delta": "LTD branch (their differences)",
    EMBEDDING: "the final embedding",
    CONSTANT: "constant of the classifier",
}


@dataclass(frozen=True, eq=False)
class Explanation:
    """What there is to say of one image.

    Attributes:
        prediction: the verdict, with the stability check.
        pixels: (S, S, 3) uint8, what the backbone saw.
        cosine: similarity of the class tokens after blocks k and k + 1, for each transition k of the backbone.
        l2: their distance.
        window: first and last block that decide: the chosen window, or all blocks that are read where the head chooses
            none; None where it reads no blocks.
        parts: name -> what it adds to the logit; empty where the head has no parts.
    """

    prediction: Prediction
    pixels: NDArray[np.uint8]
    cosine: list[float]
    l2: list[float]
    window: tuple[int, int] | None
    parts: dict[str, float]


def run(*, detector: Detector, image: Path, out: Path) -> Explanation:
    """Write the page about one image, self-contained HTML, to ``out``.

    Raises:
        DataError: the image cannot be read.
    """
    explanation = explain(detector, image)
    write_text(out, render(explanation, detector.manifest, detector.bundle.identity))
    return explanation


def explain(detector: Detector, image: Path) -> Explanation:
    """Return what there is to say of one image; see :func:`run`."""
    name, read = read_any(image, detector.read_spec(check=True))
    (prediction,) = detector.predictions([(name, read)], check=True)
    if read.pixels is None or prediction.verdict is None:
        raise DataError(f"{name} cannot be explained: {prediction.error}")
    pixels, head = read.pixels[:1], detector.head
    blocks = range(detector.backbone.card.blocks)
    cls = detector.backbone.taps(pixels, ["cls"], blocks)["cls"].cpu().numpy().swapaxes(0, 1)  # (1, L, D)
    moved = transitions(cls, blocks)[0]  # (T, 2)
    window = head.reads.blocks
    if isinstance(head, LtdHead):
        start = head.selection.start()
        window = window[start : start + head.selection.window]
    return Explanation(
        prediction=prediction,
        pixels=pixels[0],
        cosine=moved[:, 0].tolist(),
        l2=moved[:, 1].tolist(),
        window=(window[0], window[-1]) if window else None,
        parts={part: float(values[0]) for part, values in contributions(head, detector.features(pixels)).items()},
    )


def render(explanation: Explanation, manifest: BundleManifest, identity: str) -> str:
    """Return the page's HTML; the same arguments give the same bytes.

    Args:
        explanation: of one image.
        manifest: of the bundle.
        identity: of the bundle.
    """
    picture = io.BytesIO()
    Image.fromarray(explanation.pixels).save(picture, "PNG")
    context = {
        "prediction": explanation.prediction,
        "picture": f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}",
        "side": explanation.pixels.shape[0],
        "manifest": manifest,
        "identity": identity,
        "window": explanation.window,
        "charts": list(_charts(explanation, manifest.bands)),
        "rows": list(_transitions(explanation, manifest.bands)),
        "parts": list(_parts(explanation, manifest)),
        "views": ", ".join(CHECK_VIEWS),
    }
    return html.render("explain.html.j2", context, package="stages.predict", styles=("report.css", "explain.css"))


def _charts(explanation: Explanation, bands: Bands | None) -> Iterator[dict[str, Any]]:
    """A figure a quantity: the image's curve, over the bands of the training corpus where the bundle has them."""
    for name, title, unit, limits in _QUANTITIES:
        own: list[float] = getattr(explanation, name)
        x: Sequence[int] = range(len(own))
        curves = []
        if bands is not None:
            x = bands.transitions  # of the same backbone
            for kind, label, of_class in (("real", "real images", bands.real), ("fake", "synthetic", bands.synthetic)):
                band = getattr(of_class, name)
                curves.append(Curve(kind, label, x, band.mean, band.std))
        curves.append(Curve("image", "this image", x, [own[k] for k in x], [None] * len(x)))
        chart = band_chart(title, curves, limits=limits, scale=common_scale(curves, limits), y_label=unit)
        yield {"title": title, "chart": _with_window(chart, x, explanation.window)}


def _with_window(chart: Chart, x: Sequence[int], window: tuple[int, int] | None) -> Chart:
    """Shade the transitions inside the blocks that decide, behind the curves."""
    inside = [k for k in x if window is not None and window[0] <= k < window[1]]
    if not inside:
        return chart
    step = (chart.right - chart.left) / max(x[-1] - x[0], 1)
    edges = (chart.left + (k - x[0]) * step for k in (inside[0] - 0.5, inside[-1] + 0.5))
    left, right = (round(min(max(edge, chart.left), chart.right), 2) for edge in edges)
    band = f"{left},{chart.top} {right},{chart.top} {right},{chart.floor} {left},{chart.floor}"
    return replace(chart, marks=(Line("window", "the blocks that decide", "", band), *chart.marks))


def _transitions(explanation: Explanation, bands: Bands | None) -> Iterator[dict[str, Any]]:
    for k, cosine in enumerate(explanation.cosine):
        compared = []
        if bands is not None and k in bands.transitions:
            at = bands.transitions.index(k)
            compared = [(band.mean[at], band.std[at]) for band in (bands.real.cosine, bands.synthetic.cosine)]
        read = explanation.window is not None and explanation.window[0] <= k < explanation.window[1]
        yield {"k": k, "read": read, "cosine": cosine, "bands": compared}


def _parts(explanation: Explanation, manifest: BundleManifest) -> Iterator[dict[str, Any]]:
    bands, names = manifest.bands, dict(_PARTS)
    if manifest.settings.type == "layer-transformer":
        names["raw"] = "attention over the tokens of all blocks"
    classes = [] if bands is None else [bands.real.contributions, bands.synthetic.contributions]
    for name, value in explanation.parts.items():
        known = [of_class.get(name) for of_class in classes]
        yield {"name": names.get(name, name), "value": value, "classes": known or [None, None]}
