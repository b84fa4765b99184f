"""Weights files: read without executing anything in them, find the image tower inside, refuse what does not belong."""

from __future__ import annotations

import hashlib
import pickle
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from stages.extract.registry import BACKBONES
from storage.atomic import sha256_of
from storage.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from stages.extract.registry import BackboneCard
    from stages.extract.towers import Tower

# Where an image tower's keys lie: in the LTD authors' checkpoint, in a whole CLIP model, alone.
_PREFIXES = ("model.visual.", "visual.", "")
_HOLDERS = ("state_dict", "model")  # training checkpoints keep the weights under one of these


def load_weights(tower: Tower, path: Path, card: BackboneCard) -> None:
    """Load a local weights file into a tower.

    Known forms: safetensors; a state dict in a torch file, alone or under "state_dict" or "model"; OpenAI's own
    archive; the LTD authors' checkpoint. Keys may be those of a whole CLIP model or of the image tower alone.

    Raises:
        DataError: the file is missing, unreadable, would have to be executed, is another backbone's, has another
            activation, or does not fit the architecture.
    """
    sha256 = sha256_of(path)
    owner = next((known for known in BACKBONES.values() if known.sha256 == sha256), None)
    if owner is not None and owner.model != card.model:
        raise DataError(
            f"{path} holds the weights of {owner.name} ({owner.activation}) by its sha256, but the backbone is "
            f"{card.name} ({card.activation}); set extract.backbone to {owner.name}"
        )
    state, activation = _read(path, known=owner is not None)
    if activation not in {None, card.activation}:
        raise DataError(
            f"{path} belongs to the activation {activation}, but the backbone {card.name} has {card.activation}, which "
            "would silently give other features; choose a backbone with that activation (`ltdpipe backbones`)"
        )
    state = _image_tower(state, tower.module)
    state = _as_built(state, tower.module, card)
    try:
        result = tower.module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes differ; the message lists them one a line
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise DataError(f"{path} does not fit the backbone {card.name}: {lines[0] if lines else error}") from error
    if result.missing_keys or result.unexpected_keys:
        raise DataError(
            f"{path} does not fit the backbone {card.name}: {_some('missing', result.missing_keys)}, "
            f"{_some('not known', result.unexpected_keys)}"
        )


def weights_hash(module: nn.Module) -> str:
    """Return the sha256, hex, over names, shapes, types and values of all weights: the same for any file form."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, *, known: bool) -> tuple[dict[str, Tensor], str | None]:
    """Return the file's tensors by name, and the activation they belong to where the file tells it."""
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start[8:9] == b"{":  # a length of eight bytes, then JSON: safetensors
            with safe_open(path, framework="pt") as tensors:
                activation = (tensors.metadata() or {}).get("activation")
                return {name: tensors.get_tensor(name) for name in tensors.keys()}, activation  # noqa: SIM118
        if _is_torchscript(path):
            if not known:
                raise DataError(
                    f"{path} is a TorchScript archive with an unknown sha256; opening one runs code in it, so only "
                    "OpenAI's own files are opened; convert it to safetensors"
                )
            with warnings.catch_warnings():  # torch calls the form deprecated
                warnings.simplefilter("ignore")
                archive: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(archive.state_dict()), "quickgelu"
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is no weights file that can be read without running code in it ({_first_line(error)}); expected "
            "safetensors, or a torch file of tensors alone"
        ) from error
    activation = None
    for holder in _HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
            if any(name.startswith("model.visual.") for name in content):  # the LTD authors' checkpoint: OpenAI's CLIP
                activation = "quickgelu"
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected tensors by name")
    return {str(name).removeprefix("module."): value for name, value in content.items()}, activation


def _image_tower(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Return the part of a state dict that is the image tower's, under the tower's own key names."""
    own = set(module.state_dict())
    for prefix in _PREFIXES:
        part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if own & set(part):
            return part
    return state


def _as_built(state: dict[str, Tensor], module: nn.Module, card: BackboneCard) -> dict[str, Tensor]:
    """Bring weights to the form of the model as built: single precision, and timm's key names for timm's models."""
    if card.library == "timm":
        from timm.models import eva, vision_transformer  # noqa: PLC0415 - only here

        family: Any = eva if isinstance(module, eva.Eva) else vision_transformer
        state = family.checkpoint_filter_fn(state, module)
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def _is_zip(path: Path) -> bool:
    return zipfile.is_zipfile(path)


def _is_torchscript(path: Path) -> bool:
    if not _is_zip(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _some(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
