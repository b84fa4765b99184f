"""Other projects' checkpoints -> a head file of ours. Nothing in a checkpoint is executed."""

from __future__ import annotations

import pickle
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import torch

from stages.train.heads.authors_state import from_authors_state
from stages.train.heads.foreign_states import from_rine_state, from_univfd_state
from stages.train.heads.registry import build_head
from stages.train.heads.settings import HeadSettings, LtdSettings, RineSettings, UnivfdSettings
from storage.atomic import sha256_of
from storage.errors import DataError, SettingError
from storage.features import FeatureTable
from storage.headfile import save_head
from storage.index import INDEX_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

Format = Literal["ltd-authors", "univfd", "rine"]

_BACKBONE = "model."
_IMAGE_TOWER = "model.visual."


def run(
    *,
    file: Path,
    kind: Format,
    features: Path,
    name: str,
    seed: int,
    out: Path,
    first_block: int = 11,
    heads: int = 8,
    backbone: Mapping[str, Tensor] | None = None,
) -> HeadSettings:
    """Write a head file that scores features like those in ``features``.

    Args:
        file: the checkpoint, as ``torch.save`` wrote it.
        kind: whose it is.
        features: directory of an extracted view: the head is made for features of its settings.
        name: what the head is called.
        seed: under which number it is listed among the head's seeds.
        out: the head file.
        first_block: ltd-authors: first candidate block, which their file does not tell.
        heads: ltd-authors: attention heads, which their file does not tell.
        backbone: ltd-authors: weights of the image tower that made the features; the one in the file has to be equal.

    Returns:
        The head's settings, as found from the shapes in the file.

    Raises:
        DataError: the file is missing, is no checkpoint of this kind, does not fit the features' backbone (the message
            has both shapes), or holds another backbone.
        SettingError: an option does not fit the backbone.
    """
    state = read_checkpoint(file)
    spec = FeatureTable.open(features).spec
    if kind == "ltd-authors":
        tower = {
            name.removeprefix(_IMAGE_TOWER): value for name, value in state.items() if name.startswith(_IMAGE_TOWER)
        }
        if backbone is not None:
            check_backbone(file, tower, backbone)
        weights = from_authors_state({key: value for key, value in state.items() if not key.startswith(_BACKBONE)})
        settings: HeadSettings = _ltd_settings(weights, first_block, heads)
    elif backbone is not None:
        raise SettingError(f"a {kind} checkpoint holds no backbone to compare; leave --check-backbone out")
    elif kind == "univfd":
        weights, settings = from_univfd_state(state), UnivfdSettings()
    else:
        weights = from_rine_state(state)
        layers = sum(key.startswith("project.") and key.endswith(".weight") for key in weights)
        settings = RineSettings(depth=layers, project=weights["importance"].shape[-1])
    module = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
    _check_shapes(file, weights, module.state_dict(), features)
    module.load_state_dict({key: value.float() for key, value in weights.items()})
    metadata = {
        "head": name,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "imported": {"format": kind, "file": file.name, "sha256": sha256_of(file)},
        "corpus": None,
        "corpus_index_sha256": sha256_of(features / INDEX_NAME),
        "feature_key": spec.key,
        "feature_spec": spec.to_json(),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "facts": module.describe(),
        "versions": {package: version(package) for package in ("ltdpipe", "torch")},
    }
    save_head(out, module.state_dict(), metadata)
    return settings


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, of its entry ``model`` where it has one; big files are mapped, not read.

    Raises:
        DataError: the file is missing, is no checkpoint, or holds anything but tensors.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist") from error
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as a checkpoint of tensors alone ({str(error).splitlines()[0]}); files in torch's "
            "form before 1.6, or with code in them, have to be saved anew by who trusts them"
        ) from error
    state: Any = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{file} holds no mapping of names to tensors")
    return state


def check_backbone(file: Path, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Compare the backbone in a checkpoint with the local one, value by value.

    Raises:
        DataError: it is not there, or a tensor differs; the message has the first one and by how much.
    """
    if theirs.keys() != ours.keys():
        missing, unknown = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
        raise DataError(
            f"the backbone in {file} has other tensors than the local one: it lacks {len(missing)} ({missing[:3]}) and "
            f"has {len(unknown)} more ({unknown[:3]})"
        )
    for name in sorted(ours):
        mine, their = ours[name].float().cpu(), theirs[name].float()
        if mine.shape != their.shape:
            raise DataError(
                f"the backbone in {file} differs at {name}: {tuple(their.shape)}, local {tuple(mine.shape)}"
            )
        if not torch.equal(mine, their):
            most = float((mine - their).abs().max())
            raise DataError(f"the backbone in {file} is not the local one: {name} differs by up to {most:.3g}")


def _ltd_settings(weights: Mapping[str, Tensor], first_block: int, heads: int) -> LtdSettings:
    n, windows = weights["branches.raw.position"].shape[0], weights["selection.pi"].shape[0]
    return LtdSettings(window=n, candidates=(first_block, first_block + n + windows - 2), heads=heads)


def _check_shapes(file: Path, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], features: Path) -> None:
    for name, mine in ours.items():
        their = theirs[name]
        if their.shape != mine.shape:
            raise DataError(
                f"{file} does not fit the backbone of {features}: {name} is {tuple(their.shape)} in the file, "
                f"{tuple(mine.shape)} for these features; extract with the backbone it was trained on"
            )
