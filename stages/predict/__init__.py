"""Bundles and images -> verdicts: a head with all it needs in one file, and what it says of any image.

``from stages.predict import Detector`` is the Python interface; the import of torch waits until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.predict.detector import Detector
    from stages.predict.results import Prediction

__all__ = ["Detector", "Prediction"]
_HOMES = {"Detector": "stages.predict.detector", "Prediction": "stages.predict.results"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
