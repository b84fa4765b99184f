"""Weights files: found here or downloaded, read without executing anything in them, refused where they do not fit."""

from __future__ import annotations

import hashlib
import json
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
from storage.errors import DataError, ResourceError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from stages.extract.registry import BackboneCard
    from stages.extract.towers import Tower

_PREFIXES = ("model.visual.", "visual.", "")  # of keys: in the LTD authors' checkpoint, in a whole CLIP model, alone
_HOLDERS = ("state_dict", "model")  # training checkpoints keep the weights under one of these
# What a snapshot folder keeps its weights in, the first that is there.
_SNAPSHOT = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "model-*-of-*.safetensors",
    "pytorch_model.bin", "pytorch_model-*-of-*.bin",
)  # fmt: skip
# Parts of key names in Hugging Face's and in timm's CLIP -> in open_clip's.
_HUGGING_FACE = {
    "embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.": "conv1.",
    "embeddings.position_embedding.weight": "positional_embedding", "pre_layrnorm.": "ln_pre.",
    "post_layernorm.": "ln_post.", "encoder.layers.": "transformer.resblocks.", ".self_attn.": ".attn.",
    ".layer_norm1.": ".ln_1.", ".layer_norm2.": ".ln_2.", ".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj.",
}  # fmt: skip
_TIMM = {
    "patch_embed.proj.": "conv1.", "norm_pre.": "ln_pre.", "blocks.": "transformer.resblocks.", ".norm1.": ".ln_1.",
    ".norm2.": ".ln_2.", ".attn.qkv.": ".attn.in_proj_", ".attn.proj.": ".attn.out_proj.", ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.", "cls_token": "class_embedding", "pos_embed": "positional_embedding",
}  # fmt: skip
# Forms of models told by a key that only they have, for messages.
_FORMS = {
    "base_model.model.": "an adapter (PEFT)", "vision_model.head.": "a Hugging Face SigLIP model",
    "vision_model.encoder.": "a Hugging Face CLIP model", "encoder.layer.0.": "a Hugging Face ViT, DINO or BERT model",
    "text_model.": "a text tower", "visual.trunk.": "an open_clip model with a timm tower",
    "resblocks.0.": "an open_clip or OpenAI CLIP model", "blocks.0.": "a timm or DINO vision transformer",
    "layer1.0.": "a ResNet", "unet": "a diffusion model", "model.diffusion_model.": "a diffusion model",
}  # fmt: skip
# How files begin that are no weights, though they may be called so.
_STRANGERS = {
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull` where it was cloned",
    b"<": "a web page: the download ended at one; fetch it again",
    b"{": "JSON; name the file of weights beside it, or the folder that holds both",
    b"\x89HDF": "an HDF5 file, as TensorFlow writes",
    b"GGUF": "a GGUF file",
}


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
    """Return a backbone's weights file and its sha256, downloaded (as the hub's own settings say) if it is not here.

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
            f"the weights of {card.name} are not on this machine and cannot be downloaded ({first_line(error)}); on a "
            f"machine with internet run `ltdpipe fetch {card.name}` and name its file here, with --weights or in "
            "extract.weights of params.yaml, or use demo-vit"
        ) from error


def _repository(card: BackboneCard) -> tuple[str, str]:
    """Return the hub's repository and file of a backbone."""
    if card.library == "timm":
        return f"timm/{card.model}.{card.tag}", "model.safetensors"
    from open_clip import get_pretrained_cfg  # noqa: PLC0415 - slow to import

    return get_pretrained_cfg(card.model, card.tag)["hf_hub"].rstrip("/"), "open_clip_model.safetensors"


def load_weights(tower: Tower, path: Path, card: BackboneCard, sha256: str | None = None) -> None:
    """Load a local weights file, or the folder of a Hugging Face snapshot, into a tower built as ``card`` says.

    Known forms: safetensors; a state dict in a torch file, alone or under "state_dict" or "model"; OpenAI's own
    archive; the LTD authors' checkpoint. Keys may be open_clip's, OpenAI's, Hugging Face's (CLIPModel and its vision
    parts) or timm's, of a whole CLIP model or of the image tower alone. ``sha256`` of the file is given where known.

    Raises:
        DataError: the file is unreadable, would have to be executed, is another backbone's, has another activation,
            or does not fit the architecture.
    """
    files, owner = _files(path), None
    if files == [path]:
        sha256 = sha256 or sha256_of(path)
        owner = next((known for known in BACKBONES.values() if known.sha256 == sha256), None)
    if owner is not None and owner.model != card.model:
        raise DataError(
            f"{path} holds the weights of {owner.name} ({owner.activation}) by its sha256, but the backbone is "
            f"{card.name} ({card.activation}); set extract.backbone to {owner.name}"
        )
    state: dict[str, Tensor] = {}
    activation = _activation_beside(files[0])
    for file in files:
        part, told = _read(file, is_openai=owner is not None)
        state |= part
        activation = told or activation
    if activation not in {None, card.activation}:
        raise DataError(
            f"{path} belongs to the activation {activation}, but the backbone {card.name} has {card.activation}, which "
            "would silently give other features; choose a backbone with that activation (`ltdpipe backbones`)"
        )
    form = next((form for key, form in _FORMS.items() if any(key in name for name in state)), "an unknown model")
    refused = f"{path} does not fit the backbone {card.name}; by its keys it is {form}: "
    try:
        result = tower.module.load_state_dict(_of_image_tower(state, tower.module, card), strict=False)
    except (RuntimeError, KeyError) as error:  # shapes differ; the message lists them from its second line on
        raise DataError(f"{refused}{next(iter(str(error).splitlines()[1:]), str(error)).strip()}") from error
    if result.missing_keys or result.unexpected_keys:
        counts = [
            f"{len(names)} {what}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")
            for what, names in (("missing", result.missing_keys), ("not known", result.unexpected_keys))
        ]
        raise DataError(refused + ", ".join(counts))


def weights_hash(module: nn.Module) -> str:
    """Return the sha256, hex, over names, shapes, types and values of all weights: the same for any file form."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """Return the weights files that a path names: itself, or those of the snapshot folder that it is."""
    if not path.is_dir():
        return [path]
    for pattern in _SNAPSHOT:
        if found := sorted(path.glob(pattern)):
            return found
    raise DataError(f"{path} is a folder without weights; expected one of {', '.join(_SNAPSHOT)} in it, or name a file")


def _activation_beside(file: Path) -> str | None:
    """Return the activation that a Hugging Face ``config.json`` beside a weights file states for a CLIP model."""
    try:
        config = json.loads(file.with_name("config.json").read_text("utf-8"))
        if not config["model_type"].startswith("clip"):
            return None
        stated = config.get("vision_config", config).get("hidden_act", "quick_gelu")  # a default may be left out
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return str(stated).replace("quick_gelu", "quickgelu")


def _read(path: Path, *, is_openai: bool) -> tuple[dict[str, Tensor], str | None]:
    """Return the file's tensors by name, and the activation they belong to where the file tells it."""
    with path.open("rb") as file:
        start = file.read(64)
    # JSON behind its length, of eight bytes that may look like text; those of a text would be a huge length
    is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    stranger = next((what for mark, what in _STRANGERS.items() if start.lstrip().startswith(mark)), None)
    if stranger and not is_safetensors:
        raise DataError(f"{path} is no weights file but {stranger}")
    try:
        if is_safetensors:
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
        found = f" ({first_line(error)})" if isinstance(error, SafetensorError) else ""
        raise DataError(
            f"{path} is no weights file that can be read without running code in it{found}: it is damaged, or holds "
            "more than tensors; expected safetensors, or a torch file of tensors alone"
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
    if "conv1.weight" in own and any(name.startswith("vision_model.encoder.layers.") for name in state):
        part = _renamed({name: value for name, value in state.items() if not name.startswith("text_")}, _HUGGING_FACE)
    elif "conv1.weight" in own and "patch_embed.proj.weight" in state:
        part = _renamed(state, _TIMM)
    elif "trunk.patch_embed.proj.weight" in own and "patch_embed.proj.weight" in state:
        part = {f"trunk.{name}": value for name, value in state.items()}
    else:
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


def _renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Return the image tower of Hugging Face's or timm's CLIP under open_clip's names and in its shapes."""
    part: dict[str, Tensor] = {}
    for full, value in state.items():
        name = full.removeprefix("vision_model.")
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if name in {"visual_projection.weight", "head.weight"}:
            part["proj"] = value.T
        elif name in {"class_embedding", "positional_embedding"}:
            part[name] = value.flatten() if name == "class_embedding" else value.reshape(value.shape[-2:])
        elif match := re.fullmatch(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)", name):
            if match[2] == "q":
                rest = [state[full.replace(".q_proj.", f".{each}_proj.")] for each in "kv"]
                part[f"{match[1]}in_proj_{match[3]}"] = torch.cat([value, *rest])
        elif not name.endswith("position_ids") and name != "logit_scale":
            part[re.sub(r"^norm\.", "ln_post.", name)] = value
    return part


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
