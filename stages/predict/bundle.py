"""The bundle file: one safetensors file with a head's weights and, as JSON in its header, all that predicting needs.

A bundle may come from anybody. Nothing in it is executed, no more memory is taken than the file has bytes, and
whatever is wrong with it ends in one line that names the file.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from pydantic import ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from stages.heads.file import build_head
from stages.predict.card import Card
from storage.atomic import atomic_path, sha256_of
from storage.errors import DataError, SettingError
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from stages.heads.head import Head
    from stages.heads.settings import HeadSettings
    from storage.spec import FeatureSpec

_KEY = "ltdpipe"
MOST_HEADER_BYTES = 4 << 20  # a bundle with bands has a hundredth of it


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        source: its file, for messages.
        card: what it states.
        head: the head with its weights, in eval mode, without gradients.
        identity: first 12 hex digits of the file's sha256.
    """

    source: Path
    card: Card
    head: Head
    identity: str


def write_bundle(path: Path, head: Head, card: Card) -> None:
    """Write a bundle atomically; the same weights and card give the same bytes."""
    with atomic_path(path) as partial:
        partial.write_bytes(packed(head, card))


def packed(head: Head, card: Card) -> bytes:
    """Return the content of a bundle file."""
    text = json.dumps(card.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    weights = {name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}
    return safetensors.torch.save(weights, metadata={_KEY: text})


def read_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        DataError: it is missing, truncated, no bundle, of a newer form, or its weights do not fit what it states.
    """
    if path.is_dir():
        raise DataError(
            f"bundle {path} is a folder; the bundle, made by `ltdpipe bundle`, comes first, images after it"
        )
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MOST_HEADER_BYTES:
            raise DataError(
                f"{path} is no bundle of ltdpipe: its header states {length:,} bytes, more than {MOST_HEADER_BYTES:,}"
            )
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError as error:
        raise DataError(f"bundle {path} does not exist; make one with `ltdpipe bundle HEAD -o {path}`") from error
    except OSError as error:
        raise DataError(f"bundle {path} cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise DataError(f"{path} is damaged, or no bundle ({_line(error)}); copy or make it again") from error
    if text is None:
        raise DataError(
            f"{path} is no bundle: it has no metadata of ltdpipe; make one with `ltdpipe bundle HEAD -o {path}`"
        )
    card = _card(path, text)
    head = loaded_head(path, card.settings, card.spec, weights)
    if (head.reads.tap, head.reads.blocks) != (card.tap, card.blocks):
        raise DataError(
            f"{path} states that its head reads {card.tap} of blocks {str(card.blocks)[:200]}, but by its settings it "
            f"reads {head.reads.tap} of {head.reads.blocks}; make the bundle again"
        )
    return Bundle(path, card, head, sha256_of(path)[:12])


def loaded_head(source: Path, settings: HeadSettings, spec: FeatureSpec, weights: Mapping[str, Tensor]) -> Head:
    """Return a head in eval mode, without gradients, with a copy of ``weights``.

    Args:
        source: the file they are from, for messages.
        settings: of the head.
        spec: the features that it reads.
        weights: float32, by name. They may lie in a mapped file: they are not touched before their shapes are compared.

    Raises:
        DataError: the weights are not those that the settings ask for, or one is no finite number.
    """
    try:
        with torch.device("meta"):  # without memory: a stranger's settings may ask for any amount of it
            head = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
        head.load_state_dict(weights, assign=True)
    except SettingError as error:
        raise DataError(f"{source} cannot be used: {error}") from error
    except RuntimeError as error:
        raise DataError(
            f"{source} does not hold the weights its settings ask for ({_line(error)}); make it again"
        ) from error
    broken = [name for name, tensor in weights.items() if tensor.dtype != torch.float32 or not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{source}: weights that are not finite float32 numbers: {', '.join(broken[:3])}; train again")
    return deepcopy(head.eval().requires_grad_(False))


def _card(path: Path, text: str) -> Card:
    try:
        content = from_json(text)
        json.dumps(content, allow_nan=False)  # JSON has no infinity, but 1e400 is read as one
        return Card.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            version = printable(str(first["input"]))[:20]
            raise DataError(
                f"{path} is a bundle of version {version}, this ltdpipe reads versions 1 and 2; update ltdpipe"
            ) from error
        fault = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise DataError(f"{path} is no bundle that can be used: {printable(fault)[:300]}") from error
    except ValueError as error:
        raise DataError(f"{path} is no bundle: its metadata are no JSON ({_line(error)})") from error


def _line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:300]
