"""The authors' names for the parameters of their LTD head, and ours."""

from collections.abc import Mapping

from torch import Tensor

from storage.errors import DataError

_AUTHORS_NAMES = {
    "selector.logits": "selection.pi",
    "origin_pos_embedding.weight": "branches.raw.position",
    "delta_pos_embedding.weight": "branches.delta.position",
    "origin_cls": "branches.raw.class_token",
    "delta_cls": "branches.delta.class_token",
    "encoder.layers.0.self_attn.in_proj_weight": "encoder.in_weight",
    "encoder.layers.0.self_attn.in_proj_bias": "encoder.in_bias",
    "encoder.layers.0.self_attn.out_proj.weight": "encoder.out.weight",
    "encoder.layers.0.self_attn.out_proj.bias": "encoder.out.bias",
    "encoder.layers.0.linear1.weight": "encoder.expand.weight",
    "encoder.layers.0.linear1.bias": "encoder.expand.bias",
    "encoder.layers.0.linear2.weight": "encoder.contract.weight",
    "encoder.layers.0.linear2.bias": "encoder.contract.bias",
    "encoder.layers.0.norm1.weight": "encoder.norm_attention.weight",
    "encoder.layers.0.norm1.bias": "encoder.norm_attention.bias",
    "encoder.layers.0.norm2.weight": "encoder.norm_feed_forward.weight",
    "encoder.layers.0.norm2.bias": "encoder.norm_feed_forward.bias",
    "classification_head.0.weight": "norm.weight",
    "classification_head.0.bias": "norm.bias",
    "classification_head.1.weight": "classifier.weight",
    "classification_head.1.bias": "classifier.bias",
}


def from_authors_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for a full LtdHead from the head part of the authors' one, without the frozen backbone's ``model.*``.

    Raises:
        DataError: keys are missing or unknown; the message names them.
    """
    missing, unknown = sorted(_AUTHORS_NAMES.keys() - state.keys()), sorted(state.keys() - _AUTHORS_NAMES.keys())
    if missing or unknown:
        raise DataError(
            f"not the authors' LTD head: missing keys {missing}, unknown keys {unknown}; pass its head alone"
        )
    ours = {_AUTHORS_NAMES[name]: tensor for name, tensor in state.items()}
    for name in ("branches.raw.class_token", "branches.delta.class_token"):
        ours[name] = ours[name].flatten()  # (1, 1, D) to (D,)
    return ours
