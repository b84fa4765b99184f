"""The page of ``ltdpipe explain``: one self-contained HTML file in the look of the report, without any request."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from stages.predict.contributions import CONSTANT
from stages.predict.looks import CHECK_VIEWS
from stages.report import html
from stages.report.figures import Curve, Line, LineChart, band_chart, common_scale

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from stages.predict.card import Bands, Card
    from stages.predict.explain import Explanation

_QUANTITIES = (
    ("cosine", "Cosine similarity between adjacent blocks", (-1.0, 1.0)),
    ("l2", "L2 distance between adjacent blocks", (0.0, float("inf"))),
)
_BRANCHES = {"raw": "raw branch (the tokens)", "delta": "LTD branch (their differences)"}


def render(explanation: Explanation, card: Card, identity: str) -> str:
    """Return the page's HTML; the same arguments give the same bytes.

    Args:
        explanation: of one image.
        card: of the bundle.
        identity: of the bundle.
    """
    context = {
        "prediction": explanation.prediction,
        "picture": _data_uri(explanation.pixels),
        "side": explanation.pixels.shape[0],
        "card": card,
        "identity": identity,
        "window": explanation.window,
        "charts": list(_charts(explanation, card.bands)),
        "rows": list(_transitions(explanation, card.bands)),
        "parts": list(_parts(explanation, card.bands)),
        "neighbours": explanation.neighbours,
        "views": ", ".join(CHECK_VIEWS),
    }
    return html.render("explain.html.j2", context, package="stages.predict", styles=("report.css", "explain.css"))


def _charts(explanation: Explanation, bands: Bands | None) -> Iterator[dict[str, Any]]:
    """A figure a quantity: the image's curve, over the bands of the training corpus where the bundle has them."""
    x = explanation.transitions.tolist()
    for name, title, limits in _QUANTITIES:
        curves = []
        if bands is not None:
            x = [k for k in x if k in bands.transitions]
            at = [bands.transitions.index(k) for k in x]
            for kind, label, of_class in (("real", "real images", bands.real), ("fake", "synthetic", bands.synthetic)):
                band = getattr(of_class, name)
                curves.append(Curve(kind, label, x, [band.mean[i] for i in at], [band.std[i] for i in at]))
        own = [float(getattr(explanation, name)[explanation.transitions.tolist().index(k)]) for k in x]
        curves.append(Curve("image", "this image", x, own, [None] * len(own)))
        scale = common_scale(curves, limits)
        chart = band_chart(title, curves, limits=limits, scale=scale)
        yield {"title": title, "chart": _with_window(chart, x, explanation.window)}


def _with_window(chart: LineChart, x: Sequence[int], window: tuple[int, int] | None) -> LineChart:
    """Shade the transitions inside the blocks that decide, behind the curves."""
    inside = [k for k in x if window is not None and window[0] <= k < window[1]]
    if not inside:
        return chart
    step = (chart.right - chart.left) / max(x[-1] - x[0], 1)
    edges = (chart.left + (k - x[0]) * step for k in (inside[0] - 0.5, inside[-1] + 0.5))
    left, right = (round(min(max(edge, chart.left), chart.right), 2) for edge in edges)
    top = min(tick.at for tick in chart.y_ticks)
    band = f"{left},{top} {right},{top} {right},{chart.floor} {left},{chart.floor}"
    return replace(chart, lines=(Line("window", "the blocks that decide", "", band), *chart.lines))


def _transitions(explanation: Explanation, bands: Bands | None) -> Iterator[dict[str, Any]]:
    for at, k in enumerate(explanation.transitions.tolist()):
        row: dict[str, Any] = {"k": k, "read": False, "cosine": float(explanation.cosine[at]), "bands": []}
        if explanation.window is not None:
            row["read"] = explanation.window[0] <= k < explanation.window[1]
        if bands is not None and k in bands.transitions:
            place = bands.transitions.index(k)
            for of_class in (bands.real, bands.synthetic):
                row["bands"].append((of_class.cosine.mean[place], of_class.cosine.std[place]))
        yield row


def _parts(explanation: Explanation, bands: Bands | None) -> Iterator[dict[str, Any]]:
    for name, value in explanation.parts.items():
        classes: Sequence[tuple[float, float] | None] = (None, None)
        if bands is not None:
            classes = (bands.real.contributions.get(name), bands.synthetic.contributions.get(name))
        shown = "constant of the classifier" if name == CONSTANT else _BRANCHES.get(name, name)
        yield {"name": shown, "value": value, "classes": classes}


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
