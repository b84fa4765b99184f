"""What each part of a head adds to the logit of an image.

LTD ends in a LayerNorm over the joined outputs of its branches and a linear layer. With the LayerNorm's mean and
standard deviation of this image held fixed, the logit is a sum over coordinates, and a branch's contribution is the sum
over its own. The split is exact, but mean and deviation are of both branches together: it does not say what the logit
would be without one of them. A linear probe is a sum over its blocks, or over the embedding, as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stages.heads.linear import LinearHead
from stages.heads.ltd import LtdHead

if TYPE_CHECKING:
    from torch import Tensor

    from stages.heads.head import Head

CONSTANT, EMBEDDING = "constant", "embedding"


@torch.inference_mode()
def contributions(head: Head, features: Tensor) -> dict[str, Tensor]:
    """Return part -> (N,) what it adds to the logit; the parts sum to the logit. Empty for heads that are no such sum.

    Args:
        head: in eval mode.
        features: (N, L', D) or (N, E) float32.
    """
    if isinstance(head, LtdHead):
        return _of_ltd(head, features)
    if isinstance(head, LinearHead):
        weight = head.classifier.weight.view(-1, head.feature_shape[-1])  # (L', D), or (1, E)
        parts = (features.view(len(features), *weight.shape) * weight).sum(2)  # (N, L')
        names = [f"block {block}" for block in head.reads.blocks] or [EMBEDDING]
        named = {name: parts[:, at] for at, name in enumerate(names)}
        return {**named, CONSTANT: head.classifier.bias.expand(len(features))}
    return {}


def _of_ltd(head: LtdHead, features: Tensor) -> dict[str, Tensor]:
    joined_outputs: list[Tensor] = []
    hook = head.norm.register_forward_hook(lambda _module, inputs, _output: joined_outputs.append(inputs[0]))
    try:
        head(features)
    finally:
        hook.remove()
    (joined,) = joined_outputs  # (N, B D), the branches' outputs side by side
    normed = torch.nn.functional.layer_norm(joined, joined.shape[1:], eps=head.norm.eps)
    weight = head.classifier.weight[0]  # (B D,)
    names = list(head.branches)
    parts = (normed * head.norm.weight * weight).view(len(joined), len(names), -1).sum(2)  # (N, B)
    constant = (head.norm.bias * weight).sum() + head.classifier.bias[0]
    return {**{name: parts[:, at] for at, name in enumerate(names)}, CONSTANT: constant.expand(len(features))}
