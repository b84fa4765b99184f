"""A page of verdicts: one self-contained HTML file on all images of a run, the most suspicious first."""

from __future__ import annotations

import base64
import io
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from PIL import Image

from stages.predict.detector import CHECKS
from stages.predict.manifest import REAL, SYNTHETIC, UNSURE
from stages.predict.results import FAILED, most_suspicious_first
from stages.report import html
from storage.atomic import atomic_path
from storage.names import printable

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from pathlib import Path

    from stages.predict.detector import Detector
    from stages.predict.results import Prediction, Write

_QUALITY = 50
_MOST_PREVIEWS = 20_000  # beyond, a browser gets a page of more than 50 MB


@contextmanager
def open_page(out: Path, detector: Detector, check: str | None, left_out: Counter[str]) -> Iterator[Write]:
    """Give what collects results; the page is written when the block ends well.

    Args:
        out: the page.
        detector: whose verdicts they are.
        check: the check that was made.
        left_out: kind -> entries that are no images to score, complete when the block ends.
    """
    results: list[tuple[Prediction, str]] = []
    with atomic_path(out) as partial:
        partial.touch()  # a folder that may not be written to is said before anything is scored
        yield lambda one: results.append((one, _preview(one) if len(results) < _MOST_PREVIEWS else ""))
        results.sort(key=lambda result: most_suspicious_first(result[0]))
        partial.write_text(_render(results, detector, check, left_out), encoding="utf-8")


def _preview(prediction: Prediction) -> str:
    """Return the image's thumbnail as WebP in base64; empty where there is none."""
    if prediction.thumbnail is None:
        return ""
    buffer = io.BytesIO()
    Image.fromarray(prediction.thumbnail).save(buffer, "WEBP", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _render(
    results: list[tuple[Prediction, str]], detector: Detector, check: str | None, left_out: Counter[str]
) -> str:
    verdicts = [one.verdict or FAILED for one, _ in results]
    data = {
        "threshold": detector.calibration.synthetic_above,
        "images": [_row(one, preview) for one, preview in results],
    }
    context = {
        "total": len(results),
        "counts": {word: verdicts.count(word) for word in (SYNTHETIC, UNSURE, REAL, FAILED) if word in verdicts},
        "identity": detector.name(check),
        "manifest": detector.manifest,
        "random_weights": detector.warning,
        "views": ", ".join(CHECKS.get(check or "", ())),
        "left_out": ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items())),
        # inside a script element nothing but "<" can end it
        "rows": Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),  # noqa: S704
    }
    styles = ("report.css", "verdicts.css")
    return html.render("verdicts.html.j2", context, package="stages.predict", styles=styles, script="verdicts.js")


def _row(one: Prediction, preview: str) -> dict[str, Any]:
    return {
        "path": printable(one.path or ""),
        "verdict": one.verdict or FAILED,
        "probability": one.probability,
        "spread": one.spread,
        "remarks": one.remarks,
        "picture": preview,
    }
