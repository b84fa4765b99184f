"""A head and its file: building it from its settings, loading it, and scoring cached features with it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from stages.heads.head import Head, HeadInput
from stages.heads.linear import LinearHead, build_linear
from stages.heads.ltd import LtdHead
from stages.heads.machine import best_device, default_threads, repeatable
from stages.heads.rine import RineHead
from stages.heads.settings import (
    HeadSettings,
    LinearSettings,
    LtdSettings,
    RineSettings,
    TrainSettings,
    UnivfdSettings,
)
from storage.errors import DataError, SettingError
from storage.headfile import load_head
from storage.names import printable
from storage.spec import FeatureSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from storage.features import FeatureTable

_BATCH = 1024


def build_head(settings: HeadSettings, *, blocks: int, width: int, embedding: int) -> Head:
    """Return a freshly initialised head; all draws come from torch's global generator.

    Args:
        settings: of any family.
        blocks: L, the number of transformer blocks of the backbone.
        width: D, the width of its CLS tokens.
        embedding: E, the width of its final embedding.

    Raises:
        SettingError: the settings do not fit the backbone; the message has the numbers.
    """
    match settings:
        case LtdSettings():
            return LtdHead(settings, blocks=blocks, width=width)
        case LinearSettings():
            return build_linear(settings, blocks=blocks, width=width)
        case UnivfdSettings():
            return LinearHead(HeadInput(settings.tap), (embedding,))
        case RineSettings():
            return RineHead(settings, blocks=blocks, width=width)


def head_with(source: Path, settings: HeadSettings, spec: FeatureSpec, weights: Mapping[str, Tensor]) -> Head:
    """Return a head in evaluation mode, without gradients, with a copy of float32 ``weights``.

    Weights in a mapped file are not touched before their shapes are compared with what the settings ask for.

    Raises:
        DataError: the settings do not fit the backbone, or the weights the settings; the message names ``source``.
    """
    try:
        with torch.device("meta"):  # without memory: a stranger's settings may ask for any amount of it
            head = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
        head.load_state_dict(weights, assign=True)
    except SettingError as error:
        raise DataError(f"{source} cannot be used: {error}") from error
    except RuntimeError as error:
        fault = printable(" ".join(str(error).split()))[:300]
        raise DataError(f"{source} does not hold the weights its settings ask for ({fault}); make it again") from error
    broken = [name for name, tensor in weights.items() if tensor.dtype != torch.float32 or not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{source}: weights that are not finite float32 numbers: {', '.join(broken[:3])}; train again")
    return deepcopy(head.eval().requires_grad_(False))


@dataclass(frozen=True)
class TrainedHead:
    """A head file ready to score.

    Attributes:
        source: the file.
        module: the head in evaluation mode, on the GPU where there is one.
        settings: of the head; those of its training are in the metadata.
        spec: settings of the features it was trained on.
        metadata: all that the file states beside the weights.
    """

    source: Path
    module: Head
    settings: HeadSettings
    spec: FeatureSpec
    metadata: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> TrainedHead:
        """Read a head file.

        Raises:
            DataError: it is missing, damaged, of another version, or holds other weights than its settings ask for.
        """
        weights, metadata = load_head(path)
        missing = [name for name in ("settings", "feature_spec") if name not in metadata]
        if missing:
            raise DataError(f"head {path} does not say its {', '.join(missing)}; train it again with `ltdpipe train`")
        settings = settings_of(metadata, path)
        spec = FeatureSpec.from_json(metadata["feature_spec"], f"head {path}")
        return cls(path, head_with(path, settings, spec, weights).to(best_device()), settings, spec, metadata)


def first_fault(error: ValidationError) -> str:
    """Return the first fault of what a file states, in one line that no terminal obeys."""
    first = error.errors()[0]
    return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")[:300]


def settings_of(metadata: Mapping[str, Any], path: Path) -> HeadSettings:
    """Return the settings that the metadata of a head's file state.

    Raises:
        DataError: they are those of another version.
    """
    try:
        settings: HeadSettings = TypeAdapter(HeadSettings).validate_python(metadata["settings"])
    except ValidationError as error:
        raise DataError(
            f"head {path} has settings that are not known here ({first_fault(error)}); train it again"
        ) from error
    return settings


def training_of(metadata: Mapping[str, Any]) -> TrainSettings:
    """Return how a head was trained, by the metadata of its file; an earlier version stated its one optimizer too.

    Raises:
        ValidationError: they do not say it.
    """
    stated = metadata.get("train")
    if isinstance(stated, dict):
        stated = {name: value for name, value in stated.items() if name != "optimizer"}
    return TrainSettings.model_validate(stated)


def score(heads: Sequence[Head], table: FeatureTable, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logits (heads, N) of the images in ``rows`` (N,) of an extracted view; > 0 means synthetic.

    Features are read once for all heads. Nothing is drawn at random, and an image's logit depends neither on the other
    images nor on the other heads.

    Args:
        heads: in evaluation mode.
        table: the view, made with the settings of the heads' backbone.
        rows: row numbers of the table.
    """
    logits = np.empty((len(heads), len(rows)), np.float32)
    with torch.inference_mode(), repeatable(default_threads(table.spec.width)):
        for start in range(0, len(rows), _BATCH):
            chosen = rows[start : start + _BATCH]
            for tap in {head.reads.tap for head in heads}:
                same = [(number, head) for number, head in enumerate(heads) if head.reads.tap == tap]
                blocks = sorted({block for _, head in same for block in head.reads.blocks})
                features = torch.from_numpy(table.read(tap, blocks=blocks or None, rows=chosen))
                for number, head in same:
                    first = blocks.index(head.reads.blocks[0]) if blocks else 0
                    own = features[:, first : first + len(head.reads.blocks)] if blocks else features
                    exact = own.to(next(head.parameters()).device, torch.float32, memory_format=torch.contiguous_format)
                    logits[number, start : start + _BATCH] = head(exact).cpu().numpy()
    return logits.astype(np.float64)
