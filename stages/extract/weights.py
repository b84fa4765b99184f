"""Weights files: found here or downloaded, read without executing anything in them, refused where they do not fit."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import pickle
import urllib.error
import urllib.request
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from stages.extract.registry import BACKBONES
from storage.atomic import PARTIAL_SUFFIX, fsync, sha256_of
from storage.errors import DataError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from stages.extract.registry import BackboneCard
    from stages.extract.towers import Tower

_TRIES = 5
_TIMEOUT_S = 30
_CHUNK = 1 << 20
# Where an image tower's keys lie: in the LTD authors' checkpoint, in a whole CLIP model, alone.
_PREFIXES = ("model.visual.", "visual.", "")
_HOLDERS = ("state_dict", "model")  # training checkpoints keep the weights under one of these


def present_weights(card: BackboneCard) -> Path | None:
    """Return a backbone's weights file if it is on this machine; nothing is downloaded and nothing hashed."""
    address = _address(card)
    if address is not None:
        kept = _place(address)
        # OpenAI's package and open_clip keep the same file here
        shared = Path.home() / ".cache" / "clip" / kept.name
        return next((path for path in (kept, shared) if path.is_file()), None)
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - slow to import, and often not needed

    cached = try_to_load_from_cache(*_repository(card))
    return Path(cached) if isinstance(cached, str) else None


def fetch_weights(card: BackboneCard, note: Callable[[str], None]) -> Path:
    """Return a backbone's weights file, downloaded if it is not here yet, its sha256 checked where it is known.

    Raises:
        ResourceError: it cannot be downloaded, or what is here or arrived has another sha256.
    """
    path = present_weights(card) or _download(card, note)
    if card.sha256 is not None and sha256_of(path) != card.sha256:
        raise ResourceError(
            f"{path} is not the weights file of {card.name} (its sha256 differs); delete it and fetch again"
        )
    return path


def download(address: str, path: Path, note: Callable[[str], None]) -> None:
    """Download one file; a broken transfer goes on where it stopped, also in a later call.

    Of several processes that ask for one file, one downloads it and the others wait.

    Args:
        address: where it comes from, http or https.
        path: where it will lie, complete; what has arrived so far lies beside it as ``<name>.partial``.
        note: gets a line for each attempt.

    Raises:
        OSError: all attempts failed.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with partial.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note(f"waiting for another process, which downloads {path.name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                note(f"{partial} cannot be locked; let no other process download it now")
            if partial.exists() and os.path.samestat(os.fstat(file.fileno()), partial.stat()):
                _attempts(address, partial, path, note)
                return
        if path.exists():  # the other process has it
            return


def _attempts(address: str, partial: Path, path: Path, note: Callable[[str], None]) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            _continue(address, partial, note)
            fsync(partial)
            partial.replace(path)
            return
        except (OSError, http.client.HTTPException) as error:
            status = error.code if isinstance(error, urllib.error.HTTPError) else None
            refused = status is not None and status < 500
            arrived = partial.stat().st_size
            unreachable = isinstance(error, urllib.error.URLError) and status is None and not arrived
            if attempt == _TRIES or refused or unreachable:
                if not arrived:
                    partial.unlink()
                raise OSError(f"{address}: {getattr(error, 'reason', error)}") from error
            note(f"the transfer of {path.name} broke off ({error}); going on")


def _continue(address: str, partial: Path, note: Callable[[str], None]) -> None:
    have = partial.stat().st_size
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - from the registry
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            os.truncate(partial, 0)  # longer than the file: the rest of something else
            raise ConnectionError("the partial file did not fit") from error
        raise
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server sends the whole file
        total = have + int(answer.headers.get("Content-Length", 0))
        note(f"downloading {partial.name.removesuffix(PARTIAL_SUFFIX)}: {total >> 20} MB, {have >> 20} MB are here")
        with partial.open("ab" if have else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
    if have < total:
        raise ConnectionError(f"{have} of {total} bytes arrived")


def _download(card: BackboneCard, note: Callable[[str], None]) -> Path:
    address = _address(card)
    try:
        if address is not None:
            path = _place(address)
            download(address, path, note)
            return path
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - as above

        repository, file = _repository(card)
        note(f"downloading {file} of {repository}")
        return Path(hf_hub_download(repository, file))  # resumes, and checks what arrives
    except Exception as error:  # the hub raises errors of many libraries
        raise ResourceError(
            f"the weights of {card.name} are not on this machine and cannot be downloaded ({_first_line(error)}); on a "
            f"machine with internet run `ltdpipe fetch {card.name}` and name its file here, with --weights or in "
            "extract.weights of params.yaml, or use demo-vit"
        ) from error


def _place(address: str) -> Path:
    """Where a download is kept: in LTDPIPE_WEIGHTS, else ``ltdpipe/weights`` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LTDPIPE_WEIGHTS") or Path(cache, "ltdpipe", "weights"), address.rsplit("/", 1)[1])


def _address(card: BackboneCard) -> str | None:
    """Return where OpenAI publishes a file with its hash in the address; None for weights on the hub."""
    if card.sha256 is None:
        return None
    from open_clip import get_pretrained_cfg  # noqa: PLC0415 - slow to import

    address: str = get_pretrained_cfg(card.model, card.tag)["url"]
    return address


def _repository(card: BackboneCard) -> tuple[str, str]:
    """Return the hub's repository and file of a backbone."""
    if card.library == "timm":
        return f"timm/{card.model}.{card.tag}", "model.safetensors"
    from open_clip import get_pretrained_cfg  # noqa: PLC0415 - slow to import

    return get_pretrained_cfg(card.model, card.tag)["hf_hub"].rstrip("/"), "open_clip_model.safetensors"


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
    state = _as_built(_image_tower(state, tower.module), tower.module, card)
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
            if any(
                str(name).startswith("model.visual.") for name in content
            ):  # the LTD authors' checkpoint: OpenAI's CLIP
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
            break
    return part


def _as_built(state: dict[str, Tensor], module: nn.Module, card: BackboneCard) -> dict[str, Tensor]:
    """Bring weights to the form of the model as built: single precision, and timm's key names for timm's models."""
    if card.library == "timm":
        from timm.models import eva, vision_transformer  # noqa: PLC0415 - only here

        family: Any = eva if isinstance(module, eva.Eva) else vision_transformer
        state = family.checkpoint_filter_fn(state, module)
    return {
        name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in state.items()
    }


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _some(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
