"""Weights from the internet: found where they were kept, or downloaded, resumed where it broke off, and checked."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import PARTIAL_SUFFIX, fsync, sha256_of
from storage.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.extract.registry import BackboneCard

_TRIES = 5
_TIMEOUT_S = 30
_CHUNK = 1 << 20


def weights_folder() -> Path:
    """Where downloads by address are kept: LTDPIPE_WEIGHTS, else ``ltdpipe/weights`` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LTDPIPE_WEIGHTS") or Path(cache, "ltdpipe", "weights"))


def present_weights(card: BackboneCard) -> Path | None:
    """Return a backbone's weights file if it is on this machine; nothing is downloaded and nothing hashed."""
    address = _address(card)
    if address is not None:
        kept = weights_folder() / address.rsplit("/", 1)[1]
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
    present = present_weights(card)
    path = present or _download(card, note)
    if card.sha256 is not None and sha256_of(path) != card.sha256:
        raise ResourceError(
            f"{path} is not the weights file of {card.name} (its sha256 differs); delete it and fetch again"
        )
    return path


def download(address: str, path: Path, note: Callable[[str], None]) -> None:
    """Download one file; a broken transfer goes on where it stopped, also in a later call.

    Args:
        address: where it comes from, http or https.
        path: where it will lie, complete; what has arrived so far lies beside it as ``<name>.partial``.
        note: gets a line for each attempt.

    Raises:
        OSError: all attempts failed.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _TRIES + 1):
        try:
            _continue(address, partial, note)
            fsync(partial)
            partial.replace(path)
            return
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            unreachable = isinstance(error, urllib.error.URLError) and not partial.exists()
            if attempt == _TRIES or refused or unreachable:
                raise OSError(f"{address}: {getattr(error, 'reason', error)}") from error
            note(f"the transfer of {path.name} broke off ({error}); going on")


def _continue(address: str, partial: Path, note: Callable[[str], None]) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - from the registry
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            partial.unlink()  # longer than the file: the rest of something else
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
            path = weights_folder() / address.rsplit("/", 1)[1]
            download(address, path, note)
            return path
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - slow to import, and often not needed

        repository, file = _repository(card)
        note(f"downloading {file} of {repository}")
        return Path(hf_hub_download(repository, file))  # resumes, and checks what arrives
    except Exception as error:  # the hub raises errors of many libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(
            f"the weights of {card.name} are not on this machine and cannot be downloaded ({reason}); on a machine "
            f"with internet run `ltdpipe fetch {card.name}` and name its file here, with --weights or in "
            "extract.weights of params.yaml, or use demo-vit"
        ) from error


def _address(card: BackboneCard) -> str | None:
    """Return where OpenAI publishes a file with its hash in the address; None for weights on the hub."""
    if card.sha256 is None:
        return None
    from open_clip import get_pretrained_cfg  # noqa: PLC0415 - imports torch; `ltdpipe fetch` shows its help without

    address: str = get_pretrained_cfg(card.model, card.tag)["url"]
    return address


def _repository(card: BackboneCard) -> tuple[str, str]:
    """Return the hub's repository and file of a backbone."""
    if card.library == "timm":
        return f"timm/{card.model}.{card.tag}", "model.safetensors"
    from open_clip import get_pretrained_cfg  # noqa: PLC0415 - as above

    return get_pretrained_cfg(card.model, card.tag)["hf_hub"].rstrip("/"), "open_clip_model.safetensors"
