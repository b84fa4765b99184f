"""Explain one verdict: what the image's class token does, which window was read, and what each branch added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.analyse.profiles import transition_profiles
from stages.predict.contributions import contributions, representation
from stages.predict.features import open_features
from stages.predict.looks import Looks, see
from stages.predict.page import render
from storage.atomic import write_text
from storage.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.predict.detector import Detector
    from stages.predict.results import Prediction

NEIGHBOURS = 8
_BATCH = 512


@dataclass(frozen=True)
class Neighbour:
    """A training image that the head sees close to the explained one.

    Attributes:
        path: its path in the training corpus.
        label: 0 real, 1 synthetic; None where it is not known.
        generator: its generator; None for real images.
        similarity: cosine similarity of the two representations.
    """

    path: str
    label: int | None
    generator: str | None
    similarity: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """What there is to say of one image.

    Attributes:
        prediction: the verdict, with the stability check.
        pixels: (S, S, 3) uint8, what the backbone saw.
        transitions: (T,) block number k of each transition k -> k + 1.
        cosine: (T,) similarity of the class token after adjacent blocks.
        l2: (T,) their distance.
        window: first and last block that the head reads, where these are adjacent blocks.
        parts: name -> what it adds to the logit; empty where the head has no parts.
        neighbours: nearest first; None where no features were at hand.
    """

    prediction: Prediction
    pixels: NDArray[np.uint8]
    transitions: NDArray[np.int64]
    cosine: NDArray[np.float64]
    l2: NDArray[np.float64]
    window: tuple[int, int] | None
    parts: dict[str, float]
    neighbours: tuple[Neighbour, ...] | None


def run(*, detector: Detector, image: Path, out: Path, features: Path | None = None) -> Explanation:
    """Write the page about one image.

    Args:
        detector: a loaded bundle.
        image: the image file.
        out: the HTML page, self-contained.
        features: the extracted clean view of the training corpus, for nearest neighbours.

    Raises:
        DataError: the image cannot be read, or the features are damaged or not of the bundle's backbone.
    """
    explanation = explain(detector, image, features)
    write_text(out, render(explanation, detector.card, detector.bundle.identity))
    return explanation


def explain(detector: Detector, image: Path, features: Path | None = None) -> Explanation:
    """Return what there is to say of one image; see :func:`run`."""
    looks = Looks(check=True)
    seen = see(image, detector.job(looks))
    if seen.pixels is None:
        raise DataError(f"{seen.path} cannot be explained: {seen.error}")
    prediction = next(detector.predictions([seen], looks))
    pixels = seen.pixels[:1]
    blocks = range(detector.backbone.card.blocks)
    cls = detector.backbone.taps(pixels, ["cls"], blocks)["cls"].cpu().numpy().swapaxes(0, 1)  # (1, L, D)
    profile = transition_profiles([(cls, np.zeros(1, np.int64))], blocks=list(blocks), groups=1)
    read = torch.from_numpy(np.ascontiguousarray(detector.features(pixels))).to(detector.backbone.device).float()
    parts = {name: float(values[0]) for name, values in contributions(detector.head, read).items()}
    return Explanation(
        prediction=prediction,
        pixels=pixels[0],
        transitions=profile.transitions,
        cosine=profile.mean[0, :, 0],
        l2=profile.mean[0, :, 1],
        window=_window(detector),
        parts=parts,
        neighbours=None if features is None else _neighbours(detector, read, features),
    )


def _window(detector: Detector) -> tuple[int, int] | None:
    """First and last block that decide: the chosen window, or all blocks read where these are averaged or one."""
    blocks = detector.head.reads.blocks
    if not blocks:
        return None
    start = detector.head.describe().get("window_start")
    length = getattr(detector.card.settings, "window", None)
    if isinstance(start, int) and isinstance(length, int):
        return start, start + length - 1
    return blocks[0], blocks[-1]


def _neighbours(detector: Detector, read: torch.Tensor, features: Path) -> tuple[Neighbour, ...]:
    table = open_features(features, detector.card.spec)
    own = representation(detector.head, read)
    best: list[tuple[float, int]] = []
    tap, blocks = detector.card.tap, detector.card.blocks or None
    for rows, stored in table.batches(tap, blocks=blocks, size=_BATCH):
        others = representation(detector.head, torch.from_numpy(stored).to(own.device).float())
        similar = torch.nn.functional.cosine_similarity(others, own).cpu().numpy()
        nearest = np.argsort(-similar, kind="stable")[:NEIGHBOURS]
        best = sorted([*best, *((float(similar[at]), rows.start + int(at)) for at in nearest)], reverse=True)
        best = best[:NEIGHBOURS]
    index = table.index
    found = (
        (similarity, *(index[name][row].as_py() for name in ("path", "label", "generator"))) for similarity, row in best
    )
    return tuple(Neighbour(path, label, generator, similarity) for similarity, path, label, generator in found)
