"""Layers that run faster than torch's and open_clip's own, with their weights and the names of these.

torch gives products in single precision to MKL, which leaves half the width of AVX-512 units unused on CPUs that are
not Intel's; oneDNN, which torch brings beside it, uses what is there. On an AMD EPYC it takes half the time for every
product of a transformer block (docs/benchmarks.md), with results that differ by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIP: x times the sigmoid of 1.702 x."""

    def forward(self, values: Tensor) -> Tensor:
        """(...) -> (...), with one copy instead of three."""
        return (1.702 * values).sigmoid_().mul_(values)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., K) by the weight (M, K) and the bias (M,) -> (..., M); without gradients."""
    if rows.device.type == "cpu" and rows.dtype == torch.float32 and _has_onednn():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return product
    return functional.linear(rows, weight, bias)


class OneDnnLinear(nn.Linear):
    """A linear layer that is only run, never trained."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """(..., K) -> (..., M)."""
        return linear(input, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Let every plain linear layer inside a model run by oneDNN where that can be; weights and their names stay."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear


def _has_onednn() -> bool:
    # torch.compile has its own way of fusing linear layers, and is asked first: it cannot look into the other questions
    # and would cut each block into pieces there; autocast works on torch's own function
    return (
        not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.is_autocast_enabled("cpu")
    )
