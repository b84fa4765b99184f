"""Head files: weights in safetensors, with the head's settings and provenance as JSON beside them in the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from storage.atomic import atomic_path
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

# One entry holds all: safetensors writes several in random order.
_METADATA_KEY = "ltdpipe"


def save_head(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a head file atomically; the same weights and metadata give the same bytes.

    Raises:
        ValueError: the metadata is not plain JSON or holds NaN, or a weight is not finite.
    """
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    broken = _not_finite(tensors)
    if broken:
        raise ValueError(f"weights of {path} are not finite: {', '.join(broken)}")
    with atomic_path(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, metadata={_METADATA_KEY: text}))


def load_head(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a head file: its weights by name, and its metadata. Nothing in it is executed.

    Raises:
        DataError: the file is missing, damaged, not one of ours, or holds a weight that is not finite.
    """
    weights, metadata = _read(path, tensors=True)
    broken = _not_finite(weights)
    if broken:
        raise DataError(f"head {path} holds weights that are not finite: {', '.join(broken)}")
    return weights, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a head file, and no weights; raises as :func:`load_head`."""
    return _read(path, tensors=False)[1]


def _read(path: Path, *, tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.is_dir():
        raise DataError(f"head {path} is a folder; name one of the .safetensors files in it")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            weights = {name: file.get_tensor(name) for name in (file.keys() if tensors else ())}
    except FileNotFoundError as error:
        raise DataError(f"head {path} does not exist; train it with `ltdpipe train`") from error
    except (SafetensorError, OSError) as error:
        raise DataError(f"head {path} cannot be read ({error}); train it again with `ltdpipe train`") from error
    if text is None:
        raise DataError(f"{path} is no head file of ltdpipe: its metadata is missing")
    return weights, json.loads(text)


def _not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    return [name for name, weight in weights.items() if not weight.isfinite().all()]
