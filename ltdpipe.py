"""ltdpipe from Python: score images with a detector, read cached features, read scores.

The public names, and nothing else; everything that they lead to is documented where it is defined.

    from ltdpipe import Detector, open_features, read_scores

    predictions = Detector.load("detector.ltd").score(["one.jpg", "two.png"])
    table = open_features("data/features/photos/clean")
    tokens = table.read("cls", blocks=range(11, 20), rows=table.rows_of_set("midjourney"))  # (N, 9, D) float16
    scores = read_scores("scores/photos/progan/ltd-0/clean.parquet")
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.evaluate.scores import Scores
    from stages.predict.detector import Detector
    from storage.features import FeatureTable

__all__ = ["Detector", "open_features", "read_scores"]


def open_features(directory: str | Path) -> FeatureTable:
    """Open one view of an extracted corpus for reading; no feature is read yet.

    Raises:
        DataError: the index or a shard is missing or damaged; the message says what to do.
    """
    from storage.features import FeatureTable

    return FeatureTable.open(Path(directory))


def read_scores(file: str | Path) -> Scores:
    """Read a scores file of ``ltdpipe evaluate``: paths, labels, logits and test sets as numpy arrays.

    Raises:
        DataError: it is missing, damaged, or no scores file.
    """
    from stages.evaluate.scores import read_scores as read

    return read(Path(file))


def __getattr__(name: str) -> object:
    """Import ``Detector``, and torch with it, when it is asked for."""
    if name != "Detector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("stages.predict.detector").Detector
