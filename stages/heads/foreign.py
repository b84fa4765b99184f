"""Other projects' checkpoints -> a head file of ours. Nothing in a checkpoint is executed."""

from __future__ import annotations

import pickle
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

import torch

from stages.heads.file import build_head
from stages.heads.settings import HeadSettings, LtdSettings, RineSettings, UnivfdSettings
from storage.atomic import sha256_of
from storage.errors import DataError, first_line
from storage.features import FeatureTable
from storage.headfile import save_head
from storage.index import INDEX_NAME, fingerprint, read_index

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_ENTRIES = ("model", "state_dict", "model_state_dict")  # where training scripts put the weights
_WRAPPERS = ("module.", "_orig_mod.")  # prefixes of DataParallel and torch.compile
_BACKBONES = ("model.", "clip.")  # the frozen CLIP, as LTD and UnivFD, and as RINE call it

# Their names of parameters -> ours; torch's encoder layer has the same parts in both.
_LTD_LAYERS = {
    "encoder.layers.0.self_attn.out_proj": "encoder.out",
    "encoder.layers.0.linear1": "encoder.expand",
    "encoder.layers.0.linear2": "encoder.contract",
    "encoder.layers.0.norm1": "encoder.norm_attention",
    "encoder.layers.0.norm2": "encoder.norm_feed_forward",
    "classification_head.0": "norm",
    "classification_head.1": "classifier",
}
_LTD_OTHERS = {
    "selector.logits": "selection.pi",
    "origin_pos_embedding.weight": "branches.raw.position",
    "delta_pos_embedding.weight": "branches.delta.position",
    "origin_cls": "branches.raw.class_token",
    "delta_cls": "branches.delta.class_token",
    "encoder.layers.0.self_attn.in_proj_weight": "encoder.in_weight",
    "encoder.layers.0.self_attn.in_proj_bias": "encoder.in_bias",
}


def run(
    *,
    file: Path,
    kind: Literal["ltd-authors", "univfd", "rine"],
    features: Path,
    name: str,
    seed: int,
    out: Path,
    first_block: int = 11,
    heads: int = 8,
) -> HeadSettings:
    """Write a head file that scores features like those in ``features``; return its settings, from the file's shapes.

    Args:
        file: the checkpoint, as ``torch.save`` wrote it.
        kind: the project it comes from.
        features: directory of an extracted view; the head is made for features of its settings.
        name: of the head.
        seed: its number among the head's seeds.
        out: the head file.
        first_block: ltd-authors: first candidate block, which their file does not hold; nor does it hold ``heads``.
        heads: attention heads.

    Raises:
        DataError: the file is missing, is no checkpoint of this kind, or does not fit the features' backbone (the
            message has both shapes).
        SettingError: an option does not fit the backbone.
    """
    state = _read_checkpoint(file)
    spec = FeatureTable.open(features).spec
    state = {key: value for key, value in state.items() if not key.startswith(_BACKBONES)}
    settings: HeadSettings
    match kind:
        case "ltd-authors":
            weights = _renamed(state, _LTD_LAYERS, _LTD_OTHERS, "the authors' LTD head")
            for token in ("branches.raw.class_token", "branches.delta.class_token"):
                weights[token] = weights[token].flatten()  # (1, 1, D) to (D,)
            n, windows = len(weights["branches.raw.position"]), len(weights["selection.pi"])
            settings = LtdSettings(window=n, candidates=(first_block, first_block + n + windows - 2), heads=heads)
        case "univfd":
            state = {key.removeprefix("fc."): value for key, value in state.items()}
            names = {"weight": "classifier.weight", "bias": "classifier.bias"}
            weights, settings = _renamed(state, {}, names, "UnivFD's linear layer"), UnivfdSettings()
        case "rine":
            depth = sum(re.fullmatch(r"proj1\.\d+\.weight", key) is not None for key in state)
            # dropout, then linear, ReLU, dropout in turn; the classifier has no dropout in front
            stacks = (("proj1", "project", range(1, 3 * depth, 3)), ("proj2", "refine", range(1, 3 * depth, 3)))
            layers = {
                f"{theirs}.{number}": f"{ours}.{number}"
                for theirs, ours, numbers in (*stacks, ("head", "classifier", range(0, 9, 3)))
                for number in numbers
            }
            weights = _renamed(state, layers, {"alpha": "importance"}, "RINE's head")
            weights["importance"] = weights["importance"].squeeze(0)  # (1, L, d') to (L, d')
            settings = RineSettings(depth=depth, project=weights["importance"].shape[-1])
    module = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
    for parameter, ours in module.state_dict().items():
        theirs = weights[parameter]
        if theirs.shape != ours.shape:
            raise DataError(
                f"{file} does not fit the backbone of {features}: {parameter} is {tuple(theirs.shape)} in the file, "
                f"{tuple(ours.shape)} for these features; extract with the backbone it was trained on"
            )
    module.load_state_dict({key: value.float() for key, value in weights.items()})
    metadata = {
        "head": name,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "imported": {"format": kind, "file": file.name, "sha256": sha256_of(file)},
        "corpus": None,
        "corpus_index_sha256": fingerprint(read_index(features / INDEX_NAME)),
        "feature_key": spec.key,
        "feature_spec": spec.to_json(),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "facts": module.describe(),
        "versions": {package: version(package) for package in ("ltdpipe", "torch")},
    }
    save_head(out, module.state_dict(), metadata)
    return settings


def _read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint, under their names in the bare module; big files are mapped, not read."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist") from error
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as a checkpoint of tensors alone ({first_line(error)}); a whole "
            "pickled model, a file with code in it or of torch before 1.6 has to be saved anew by someone who trusts "
            "it, with torch.save(model.state_dict(), FILE)"
        ) from error
    content = content if isinstance(content, dict) else {}
    content = next((content[entry] for entry in _ENTRIES if isinstance(content.get(entry), dict)), content)
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    state = {key: value for key, value in tensors.items() if value.ndim or value.is_floating_point()}  # no counters
    if not state:
        raise DataError(f"{file} holds no mapping of names to tensors")
    while wrapper := next((each for each in _WRAPPERS if all(key.startswith(each) for key in state)), None):
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def _renamed(
    state: Mapping[str, Tensor], layers: Mapping[str, str], others: Mapping[str, str], what: str
) -> dict[str, Tensor]:
    """The tensors of a head under our names: weights and biases of ``layers``, and ``others``."""
    names = {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in layers.items() for kind in ("weight", "bias")}
    names |= others
    missing, unknown = sorted(names.keys() - state.keys()), sorted(state.keys() - names.keys())
    if missing or unknown:
        raise DataError(f"not {what}: missing keys {missing}, unknown keys {unknown}")
    return {names[key]: tensor for key, tensor in state.items()}
