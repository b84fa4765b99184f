"""The bundle file: one safetensors file with a head's weights and, as JSON in its header, all that predicting needs.

A bundle may come from anybody. Nothing in it is executed, sizes are checked before anything is allocated, and whatever
is wrong with it ends in one line that names the file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from stages.predict.card import Card
from stages.train.heads.registry import build_head
from storage.atomic import atomic_path
from storage.errors import DataError, SettingError
from storage.names import printable

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from stages.train.heads.head import Head

_KEY = "ltdpipe"
MOST_HEADER_BYTES = 4 << 20  # a bundle with bands and isotonic knots has a hundredth of it


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        source: its file, for messages.
        card: what it states.
        head: the head with its weights, in eval mode, without gradients.
        identity: first 12 hex digits of the sha256 over weights and card.
    """

    source: Path
    card: Card
    head: Head
    identity: str


def write_bundle(path: Path, weights: dict[str, Tensor], card: Card) -> None:
    """Write a bundle atomically; the same weights and card give the same bytes.

    Raises:
        DataError: the weights do not fit the head that the card describes.
    """
    content = _content(weights, card)
    _head(path, card, weights)
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        DataError: it is missing, truncated, no bundle, of a newer form, or its weights do not fit what it states.
    """
    header = _header(path)
    text = header.get("__metadata__", {}).get(_KEY)
    if text is None:
        raise DataError(
            f"{path} is no bundle: it has no metadata of ltdpipe; make one with `ltdpipe bundle HEAD -o {path}`"
        )
    card = _card(path, text)
    expected = {name: (list(tensor.shape), "F32") for name, tensor in _built_empty(path, card).state_dict().items()}
    found = {name: (entry["shape"], entry["dtype"]) for name, entry in header.items() if name != "__metadata__"}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise DataError(
                f"{path}: weight {name[:100]!r} is {_shape(found.get(name))}, expected {_shape(expected.get(name))} "
                "for the head it describes; make the bundle again"
            )
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged ({_line(error)}); copy or make it again") from error
    return Bundle(path, card, _head(path, card, weights), hashlib.sha256(_content(weights, card)).hexdigest()[:12])


def weights_of(head: Head) -> dict[str, Tensor]:
    """Return a head's weights as bundles hold them."""
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in head.state_dict().items()}


def _content(weights: dict[str, Tensor], card: Card) -> bytes:
    text = json.dumps(card.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return bytes(safetensors.torch.save(weights, metadata={_KEY: text}))


def _header(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise DataError(f"{path} is truncated or no bundle: {size} bytes; copy it again")
            if length > MOST_HEADER_BYTES:
                raise DataError(
                    f"{path}: its header states {length:,} bytes, at most {MOST_HEADER_BYTES:,} are read; this is no "
                    "bundle of ltdpipe"
                )
            header = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise DataError(f"bundle {path} does not exist; make one with `ltdpipe bundle HEAD -o {path}`") from error
    except OSError as error:
        raise DataError(f"bundle {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no bundle: its header is no JSON ({_line(error)})") from error
    tensors = [entry for name, entry in header.items() if name != "__metadata__"] if isinstance(header, dict) else [0]
    if not all(isinstance(entry, dict) and {"shape", "dtype"} <= entry.keys() for entry in tensors):
        raise DataError(f"{path} is no bundle: its header lists no tensors")
    if not isinstance(header.get("__metadata__", {}), dict):
        raise DataError(f"{path} is no bundle: its metadata are no texts by name")
    return dict(header)


def _card(path: Path, text: object) -> Card:
    try:
        content = json.loads(text if isinstance(text, str) else "", parse_constant=_no_number)
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > 1:
            raise DataError(
                f"{path} is a bundle of version {str(version)[:20]}, this ltdpipe reads version 1; update ltdpipe"
            )
        return Card.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise DataError(f"{path} is no bundle that can be used: {printable(fault)[:300]}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is no bundle: its metadata are no JSON ({_line(error)})") from error


def _built_empty(path: Path, card: Card) -> Head:
    """The head without memory for its weights, to compare shapes before anything is allocated."""
    with torch.device("meta"):
        return _built(path, card)


def _built(path: Path, card: Card) -> Head:
    spec = card.features
    try:
        head = build_head(card.settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
    except SettingError as error:
        raise DataError(f"{path} is no bundle that can be used: {error}") from error
    if (head.reads.tap, head.reads.blocks) != (card.tap, card.blocks):
        raise DataError(
            f"{path} states that its head reads {card.tap} of blocks {list(card.blocks)}, but by its settings it reads "
            f"{head.reads.tap} of {list(head.reads.blocks)}; make the bundle again"
        )
    return head


def _head(path: Path, card: Card, weights: dict[str, Tensor]) -> Head:
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise DataError(f"{path}: weights that are not finite: {', '.join(broken[:3])}; train the head again")
    with torch.random.fork_rng(devices=[]):  # building draws weights that are replaced at once
        head = _built(path, card)
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"{path}: its weights are not those its settings ask for ({_line(error)})") from error
    return head.eval().requires_grad_(False)


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _shape(entry: tuple[Any, str] | None) -> str:
    return "absent" if entry is None else f"{entry[1]} {str(entry[0])[:100]}"


def _line(error: BaseException) -> str:
    return printable(next(iter(str(error).splitlines()), type(error).__name__))[:300]
