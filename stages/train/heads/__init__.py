"""Head families: from a backbone's features to one logit an image.

Importing this package, or its ``settings``, does not import torch: parameters are validated by commands that never need
it. ``Head``, ``Reads`` and ``build_head`` are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from stages.train.heads.settings import HeadSettings

if TYPE_CHECKING:
    from stages.train.heads.head import Head, Reads
    from stages.train.heads.registry import build_head

__all__ = ["Head", "HeadSettings", "Reads", "build_head"]

_HOMES = {"Head": "head", "Reads": "head", "build_head": "registry"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
