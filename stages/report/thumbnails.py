"""Small pictures of the errors that a head is surest of, as data URIs: nothing is fetched when the report is read."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from stages.evaluate.scores import sigmoid
from storage.names import to_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stages.report.results import Results
    from stages.report.sample import Sample
    from storage.sources import Sources

SIDE = 96
PER_GENERATOR = 4
_QUALITY = 70
# What Pillow raises on damaged images, and what reading them raises.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError)


@dataclass(frozen=True)
class Picture:
    """One wrongly called image: its path, mean score over seeds, and a data URI (empty where it cannot be shown)."""

    path: str
    score: float
    uri: str


@dataclass(frozen=True)
class Errors:
    """The surest errors on the images of one generator of a corpus, or on its real images."""

    corpus: str
    group: str
    real: bool
    wrong: int
    total: int
    pictures: tuple[Picture, ...]


def surest_errors(results: Results, head: str, images: Mapping[str, Sources]) -> list[Errors]:
    """Return the errors of a head, reals first, then generator by generator, where a corpus's images are at hand.

    Args:
        results: what was measured.
        head: whose errors; the sign of the mean logit over its seeds decides what is one.
        images: corpus -> where its images are; corpora without are left out.
    """
    return [
        errors
        for corpus, sample in results.samples.items()
        if corpus in images and sample.seeds(head)
        for errors in _of_corpus(sample, head, images[corpus])
    ]


def _of_corpus(sample: Sample, head: str, images: Sources) -> Iterator[Errors]:
    logits = sample.mean_logits(head)
    generators = sorted({name for name in sample.generator[sample.label == 1] if name is not None})
    for real, generator in [(True, None), *((False, name) for name in generators)]:
        of_group = sample.label == 0 if real else (sample.label == 1) & (sample.generator == generator)
        wrong = np.flatnonzero(of_group & ((logits > 0) if real else (logits <= 0)))
        # surest first; equal ones in order of path
        surest = wrong[np.argsort(-np.abs(logits[wrong]), kind="stable")][: PER_GENERATOR * (2 if real else 1)]
        scores = sigmoid(logits[surest])
        pictures = tuple(
            Picture(path, float(score), _data_uri(images, path))
            for path, score in zip(sample.path[surest], scores, strict=True)
        )
        if pictures:
            group = "real images" if real else str(generator)
            yield Errors(sample.corpus, group, real, len(wrong), int(of_group.sum()), pictures)


def _data_uri(images: Sources, path: str) -> str:
    """Return a small JPEG of an image; empty when it is not there, not inside the corpus, or no readable image."""
    place = PurePosixPath(to_path(path))
    if place.is_absolute() or ".." in place.parts:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(images.read(path))) as image:
                image.draft("RGB", (SIDE * 2, SIDE * 2))
                small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=_QUALITY)
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
