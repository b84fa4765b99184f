"""Weights files: found here or downloaded, read without executing anything in them, refused where they do not fit."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from stages.extract.registry import BACKBONES
from storage.atomic import sha256_of
from storage.errors import DataError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from stages.extract.registry import BackboneCard
    from stages.extract.towers import Tower

# Prefixes of an image tower's keys: in the LTD authors' checkpoint, in a whole CLIP model, alone.
_PREFIXES = ("model.visual.", "visual.", "")
_HOLDERS = ("state_dict", "model")  # training checkpoints keep the weights under one of these


def present_weights(card: BackboneCard) -> Path | None:
    """Return a backbone's weights file if it is on this machine; nothing is downloaded and nothing hashed.

    It is in the folder LTDPIPE_WEIGHTS, else in the cache of huggingface_hub; OpenAI's own files are also found in
    ``ltdpipe/weights`` of the user's cache and where OpenAI's package keeps them.
    """
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - slow to import

    folder = os.environ.get("LTDPIPE_WEIGHTS")
    if card.sha256 is not None:
        from open_clip import get_pretrained_cfg  # noqa: PLC0415 - slow to import

        name = get_pretrained_cfg(card.model, card.tag)["url"].rsplit("/", 1)[1]
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        for place in (folder or Path(cache, "ltdpipe", "weights"), Path.home() / ".cache" / "clip"):
            if Path(place, name).is_file():
                return Path(place, name)
    cached = try_to_load_from_cache(*_repository(card), cache_dir=folder)
    return Path(cached) if isinstance(cached, str) else None


def fetch_weights(card: BackboneCard, note: Callable[[str], None]) -> tuple[Path, str]:
    """Return a backbone's weights file and its sha256, downloaded if it is not here yet.

    The hub's downloads resume, wait for one another, and follow its settings (HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME).

    Raises:
        ResourceError: it cannot be downloaded, or has another sha256 than OpenAI or the hub states.
    """
    path = present_weights(card) or _download(card, note)
    sha256 = sha256_of(path)
    stated = card.sha256 if path.suffix == ".pt" else path.resolve().name  # the hub's cache names files by their hash
    if stated is not None and re.fullmatch("[0-9a-f]{64}", stated) and sha256 != stated:
        raise ResourceError(
            f"{path} is not the weights file of {card.name} (its sha256 differs); delete {path.resolve()} and "
            "fetch again"
        )
    return path, sha256


def _download(card: BackboneCard, note: Callable[[str], None]) -> Path:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - slow to import

    repository, file = _repository(card)
    note(f"downloading {file} of {repository}")
    try:
        return Path(hf_hub_download(repository, file, cache_dir=os.environ.get("LTDPIPE_WEIGHTS")))
    except Exception as error:  # the hub raises errors of many libraries
        raise ResourceError(
            f"the weights of {card.name} are not on this machine and cannot be downloaded ({_first_line(error)}); on a "
            f"machine with internet run `ltdpipe fetch {card.name}` and name its file here, with --weights or in "
            "extract.weights of params.yaml, or use demo-vit"
        ) from error


def _repository(card: BackboneCard) -> tuple[str, str]:
    """Return the hub's repository and file of a backbone."""
    if card.library == "timm":
        return f"timm/{card.model}.{card.tag}", "model.safetensors"
    from open_clip import get_pretrained_cfg  # noqa: PLC0415 - slow to import

    return get_pretrained_cfg(card.model, card.tag)["hf_hub"].rstrip("/"), "open_clip_model.safetensors"


def load_weights(tower: Tower, path: Path, card: BackboneCard, sha256: str) -> None:
    """Load a local weights file into a tower.

    Known forms: safetensors; a state dict in a torch file, alone or under "state_dict" or "model"; OpenAI's own
    archive; the LTD authors' checkpoint. Keys may be those of a whole CLIP model or of the image tower alone.

    Args:
        tower: built as ``card`` says.
        path: the file.
        card: the backbone that it should be.
        sha256: of the file.

    Raises:
        DataError: the file is unreadable, would have to be executed, is another backbone's, has another activation,
            or does not fit the architecture.
    """
    owner = next((known for known in BACKBONES.values() if known.sha256 == sha256), None)
    if owner is not None and owner.model != card.model:
        raise DataError(
            f"{path} holds the weights of {owner.name} ({owner.activation}) by its sha256, but the backbone is "
            f"{card.name} ({card.activation}); set extract.backbone to {owner.name}"
        )
    state, activation = _read(path, is_openai=owner is not None)
    if activation not in {None, card.activation}:
        raise DataError(
            f"{path} belongs to the activation {activation}, but the backbone {card.name} has {card.activation}, which "
            "would silently give other features; choose a backbone with that activation (`ltdpipe backbones`)"
        )
    try:
        result = tower.module.load_state_dict(_of_image_tower(state, tower.module, card), strict=False)
    except RuntimeError as error:  # shapes differ; the message lists them one a line
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise DataError(f"{path} does not fit the backbone {card.name}: {lines[0] if lines else error}") from error
    if result.missing_keys or result.unexpected_keys:
        counts = [
            f"{len(names)} {what}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")
            for what, names in (("missing", result.missing_keys), ("not known", result.unexpected_keys))
        ]
        raise DataError(f"{path} does not fit the backbone {card.name}: {', '.join(counts)}")


def weights_hash(module: nn.Module) -> str:
    """Return the sha256, hex, over names, shapes, types and values of all weights: the same for any file form."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, *, is_openai: bool) -> tuple[dict[str, Tensor], str | None]:
    """Return the file's tensors by name, and the activation they belong to where the file tells it."""
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start[8:9] == b"{":  # a length of eight bytes, then JSON: safetensors
            with safe_open(path, framework="pt") as tensors:
                activation = (tensors.metadata() or {}).get("activation")
                return {name: tensors.get_tensor(name) for name in tensors.keys()}, activation  # noqa: SIM118
        if _is_torchscript(path):
            if not is_openai:
                raise DataError(
                    f"{path} is a TorchScript archive with an unknown sha256; opening one runs code in it, so only "
                    "OpenAI's own files are opened; convert it to safetensors"
                )
            with warnings.catch_warnings():  # torch calls TorchScript deprecated
                warnings.simplefilter("ignore")
                archive: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return dict(archive.state_dict()), "quickgelu"
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
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
            if any(str(name).startswith("model.visual.") for name in content):  # the LTD authors': OpenAI's CLIP
                activation = "quickgelu"
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected tensors by name")
    return {str(name).removeprefix("module."): value for name, value in content.items()}, activation


def _of_image_tower(state: dict[str, Tensor], module: nn.Module, card: BackboneCard) -> dict[str, Tensor]:
    """Return the image tower's part of a state dict, as built: its key names, in single precision."""
    own = set(module.state_dict())
    for prefix in _PREFIXES:
        part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if own & set(part):
            break
    if card.library == "timm":
        from timm.models import eva, vision_transformer  # noqa: PLC0415 - only here

        family: Any = eva if isinstance(module, eva.Eva) else vision_transformer
        part = family.checkpoint_filter_fn(part, module)
    return {
        name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in part.items()
    }


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
