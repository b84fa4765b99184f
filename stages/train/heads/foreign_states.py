"""The parameter names of other projects' checkpoints, and ours: UnivFD and RINE (LTD: ``authors_state``)."""

import re
from collections.abc import Mapping

from torch import Tensor

from storage.errors import DataError

_RINE_PARTS = {"proj1": "project", "proj2": "refine", "head": "classifier"}


def from_univfd_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for UnivFD's head from ``fc_weights.pth``, which holds ``weight`` (1, E) and ``bias`` (1,).

    Raises:
        DataError: keys are missing or unknown; the message names them.
    """
    _expect({"weight", "bias"}, state, "UnivFD's linear layer")
    return {f"classifier.{name}": tensor for name, tensor in state.items()}


def from_rine_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for RINE's head from a ``model_*_trainable.pth``: ``alpha`` (1, L, d') and three stacks of layers.

    Raises:
        DataError: keys are missing or unknown; the message names them.
    """
    depth = sum(re.fullmatch(r"proj1\.\d+\.weight", name) is not None for name in state)
    # dropout, then linear, ReLU, dropout in turn; the classifier has no dropout in front
    layers = [f"{part}.{3 * number + 1}" for part in ("proj1", "proj2") for number in range(depth)]
    layers += [f"head.{3 * number}" for number in range(3)]
    _expect({"alpha", *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))}, state, "RINE's head")
    ours = {"importance": state["alpha"].squeeze(0)}  # (1, L, d') to (L, d')
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if rest:
            ours[f"{_RINE_PARTS[part]}.{rest}"] = tensor
    return ours


def _expect(names: set[str], state: Mapping[str, Tensor], what: str) -> None:
    missing, unknown = sorted(names - state.keys()), sorted(state.keys() - names)
    if missing or unknown:
        raise DataError(f"not {what}: missing keys {missing}, unknown keys {unknown}")
