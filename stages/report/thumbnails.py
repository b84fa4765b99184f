"""Small pictures of a head's most confident errors, as data URIs: nothing is fetched when the report is read."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from stages.evaluate.scores import sigmoid
from storage.names import to_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.report.results import Results
    from storage.sources import Sources

SIDE = 96
PER_GENERATOR = 4
# What Pillow raises on damaged and on enormous images, and what reading them raises.
_NOT_SHOWN = (
    OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class Picture(NamedTuple):
    """One wrongly called image: its path, mean score over seeds, and a data URI (empty where it cannot be shown)."""

    path: str
    score: float
    uri: str


class Errors(NamedTuple):
    """The most confident errors on the images of one generator of a corpus, or on its real images."""

    corpus: str
    group: str
    wrong: int
    total: int
    pictures: Sequence[Picture]


def most_confident_errors(results: Results, head: str, sources: Mapping[str, Sources]) -> list[Errors]:
    """Return the errors of a head, reals first, then generator by generator, for the corpora of ``sources``.

    The sign of the mean logit over the head's seeds decides what is one.
    """
    errors = []
    for corpus, images in results.images.items():
        of_seeds = [logits for (name, _), logits in sorted(results.logits[corpus].items()) if name == head]
        if corpus not in sources or not of_seeds:
            continue
        mean = np.mean(of_seeds, axis=0)
        fake = images.label == 1
        groups = [("real images", ~fake, mean > 0, 2 * PER_GENERATOR)]
        generators = sorted({name for name in images.generator[fake] if name is not None})
        groups += [(name, fake & (images.generator == name), mean <= 0, PER_GENERATOR) for name in generators]
        for group, members, called_wrongly, most in groups:
            wrong = np.flatnonzero(members & called_wrongly)
            # equally confident ones in order of path
            shown = wrong[np.argsort(-np.abs(mean[wrong]), kind="stable")][:most]
            pairs = zip(images.path[shown], sigmoid(mean[shown]).tolist(), strict=True)
            pictures = [Picture(path, score, _data_uri(sources[corpus], path)) for path, score in pairs]
            if pictures:
                errors.append(Errors(corpus, group, len(wrong), int(members.sum()), pictures))
    return errors


def _data_uri(sources: Sources, path: str) -> str:
    """Return a small JPEG of an image; empty when it is not there, not inside the corpus, or no readable image."""
    place = PurePosixPath(to_path(path))
    if place.is_absolute() or ".." in place.parts:
        return ""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(sources.read(path))) as image:
                image.draft("RGB", (SIDE * 2, SIDE * 2))
                small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        small.save(buffer, "JPEG", quality=70)
    except _NOT_SHOWN:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
