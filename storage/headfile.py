"""Head files: weights in safetensors, with the head's settings and provenance as JSON beside them in the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from storage.atomic import atomic_path
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from torch import Tensor

# All in one entry: safetensors writes several in random order.
_METADATA_KEY = "ltdpipe"
_UNKNOWN_KEY = "unknown_tensors"


def save_head(
    path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any], *, unknown: Collection[str] = ()
) -> None:
    """Write a head file atomically; the same weights and metadata give the same bytes.

    Args:
        path: the file.
        weights: tensors by name.
        metadata: plain JSON.
        unknown: names of tensors that hold NaN because their value is not known, as in an imported head; the file
            says so, and only these are allowed to.

    Raises:
        ValueError: the metadata is not plain JSON or holds NaN, or a weight is not finite.
    """
    header = {**metadata, **({_UNKNOWN_KEY: sorted(unknown)} if unknown else {})}
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    broken = _not_finite(tensors, unknown)
    if broken:
        raise ValueError(f"weights of {path} are not finite: {', '.join(broken)}")
    with atomic_path(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, metadata={_METADATA_KEY: text}))


def load_head(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a head file: its weights by name, and its metadata. Nothing in it is executed.

    Raises:
        DataError: the file is missing, damaged, not one of ours, or holds a weight that is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError as error:
        raise DataError(f"head {path} does not exist; train it with `ltdpipe train`") from error
    except (SafetensorError, OSError) as error:
        raise DataError(f"head {path} cannot be read ({error}); train it again with `ltdpipe train`") from error
    if text is None:
        raise DataError(f"{path} is no head file of ltdpipe: its metadata is missing")
    metadata: dict[str, Any] = json.loads(text)
    broken = _not_finite(weights, metadata.pop(_UNKNOWN_KEY, ()))
    if broken:
        raise DataError(f"head {path} holds weights that are not finite: {', '.join(broken)}")
    return weights, metadata


def _not_finite(weights: Mapping[str, Tensor], unknown: Collection[str]) -> list[str]:
    return [name for name, weight in weights.items() if name not in unknown and not weight.isfinite().all()]
