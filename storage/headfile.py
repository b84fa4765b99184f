"""Head files and bundles: weights in safetensors, with all that is stated of them as JSON in the header.

A file may come from anybody: nothing in it is executed, and no more memory is taken than it has bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import safetensors.torch
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from storage.atomic import atomic_path
from storage.errors import DataError
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

MAX_HEADER_BYTES = 4 << 20  # a bundle with bands has a hundredth of it
_METADATA_KEY = "ltdpipe"  # one entry holds all: safetensors writes several in random order
_REMEDY = "train it with `ltdpipe train`, or name one of the .safetensors files that it wrote"


def save_head(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a head file atomically; the same weights and metadata give the same bytes.

    Raises:
        ValueError: the metadata is not plain JSON or holds NaN, or a weight is not finite.
    """
    broken = _not_finite(weights)
    if broken:
        raise ValueError(f"weights of {path} are not finite: {', '.join(broken)}")
    save_stated(path, weights, metadata)


def load_head(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a head file: its weights by name, and its metadata.

    Raises:
        DataError: the file is missing, damaged, not one of ours, or holds a weight that is not finite.
    """
    weights, metadata = load_stated(path, what="head", remedy=_REMEDY)
    broken = _not_finite(weights)
    if broken:
        raise DataError(f"head {path} holds weights that are not finite: {', '.join(broken)}")
    return weights, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a head file, and no weights; raises as :func:`load_head`."""
    return load_stated(path, what="head", remedy=_REMEDY, tensors=False)[1]


def save_stated(path: Path, tensors: Mapping[str, Tensor], stated: Mapping[str, Any]) -> None:
    """Write tensors, and what is stated of them, atomically; the same give the same bytes."""
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"), allow_nan=False)
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as partial:
        partial.write_bytes(safetensors.torch.save(content, metadata={_METADATA_KEY: text}))


def load_stated(
    path: Path, *, what: str, remedy: str, tensors: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors by name, where they are asked for, and what is stated of them.

    Args:
        path: the file.
        what: what messages call it, as "bundle".
        remedy: what to do about a file that cannot be read.
        tensors: False to read what is stated alone.

    Raises:
        DataError: the file is missing, damaged, or not one of ours.
    """
    try:
        with path.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"its header states {length:,} bytes, more than {MAX_HEADER_BYTES:,}")
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            read = {name: file.get_tensor(name) for name in (file.keys() if tensors else ())}
        stated = from_json(text or "null")
        json.dumps(stated, allow_nan=False)  # JSON has no infinity, but 1e400 is read as one
        if not isinstance(stated, dict):
            raise ValueError("it has no metadata of ltdpipe")
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} does not exist; {remedy}") from error
    except (OSError, SafetensorError, ValueError) as error:
        fault = printable(" ".join(str(error).split()))[:300]
        raise DataError(f"{what} {path} cannot be read ({fault}); {remedy}") from error
    return read, stated


def _not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    return [name for name, weight in weights.items() if not weight.isfinite().all()]
