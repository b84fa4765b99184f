"""What each part of a head adds to the logit of an image, and where the head sees images close to each other.

LTD ends in a LayerNorm over the joined outputs of its branches and a linear layer. With the LayerNorm's mean and
standard deviation of this image held fixed, the logit is a sum over coordinates, and a branch's contribution is the sum
over its coordinates. The split is exact, but the mean and standard deviation are of both branches together: it does not
say what the logit would be without one of them. A linear probe is a sum over its blocks as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stages.heads.linear import LinearHead
from stages.heads.ltd import LtdHead

if TYPE_CHECKING:
    from torch import Tensor

    from stages.heads.head import Head

CONSTANT = "constant"


@torch.inference_mode()
def contributions(head: Head, features: Tensor) -> dict[str, Tensor]:
    """Return part -> (N,) what it adds to the logit; the parts sum to the logit. Empty for other heads than these two.

    Args:
        head: in eval mode.
        features: (N, L', D) or (N, E) float32.
    """
    if isinstance(head, LtdHead):
        return _of_ltd(head, features)
    if isinstance(head, LinearHead) and head.reads.tap == "cls":
        weight = head.classifier.weight.view(head.feature_shape)  # (L', D)
        parts = (features * weight).sum(2)  # (N, L')
        named = {f"block {block}": parts[:, at] for at, block in enumerate(head.reads.blocks)}
        return {**named, CONSTANT: head.classifier.bias.expand(len(features))}
    return {}


@torch.inference_mode()
def representation(head: Head, features: Tensor) -> Tensor:
    """Return (N, R): what the head makes of images before its classifier; the features themselves where it has none."""
    if isinstance(head, LtdHead):
        return _joined(head, features).mean(0)
    return features.flatten(1)


def _of_ltd(head: LtdHead, features: Tensor) -> dict[str, Tensor]:
    joined = _joined(head, features)  # (W, N, B D), W windows that evaluation averages
    normed = torch.nn.functional.layer_norm(joined, joined.shape[2:], eps=head.norm.eps)
    weight = head.classifier.weight[0]  # (B D,)
    names = list(head.branches)
    parts = (normed * head.norm.weight * weight).view(*joined.shape[:2], len(names), -1).sum(3).mean(0)  # (N, B)
    constant = (head.norm.bias * weight).sum() + head.classifier.bias[0]
    return {**{name: parts[:, at] for at, name in enumerate(names)}, CONSTANT: constant.expand(len(features))}


def _joined(head: LtdHead, features: Tensor) -> Tensor:
    """Return (W, N, B D), the branches' outputs side by side, for each of the W windows of evaluation."""
    seen: list[Tensor] = []
    hook = head.norm.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    try:
        head(features)
    finally:
        hook.remove()
    return torch.stack(seen)
