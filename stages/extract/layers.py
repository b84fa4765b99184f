"""Layers that run faster than torch's and open_clip's own, under the same weights and names.

torch gives products in single precision to MKL, which leaves half the width of AVX-512 units unused on CPUs that are
not Intel's; oneDNN, which torch brings along, uses all of it. On an AMD EPYC it takes half the time for every product
of a transformer block (docs/benchmarks.md), with results that differ by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# The one private operator of torch that is used; pyproject.toml bounds torch's version. False: functional.linear.
USE_ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIP: x times the sigmoid of 1.702 x."""

    def forward(self, values: Tensor) -> Tensor:
        """(...) -> (...), with one copy instead of three."""
        return (1.702 * values).sigmoid_().mul_(values)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., K) by the weight (M, K) and the bias (M,) -> (..., M); without gradients."""
    # torch.compile fuses linear layers in its own way, and autocast works on torch's own function
    if rows.device.type != "cpu" or rows.dtype != torch.float32 or torch.compiler.is_compiling():
        return functional.linear(rows, weight, bias)
    if not USE_ONEDNN or torch.is_autocast_enabled("cpu"):
        return functional.linear(rows, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


class InferenceLinear(nn.Module):
    """A linear layer that is only run, never trained."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, rows: Tensor) -> Tensor:
        """(..., K) -> (..., M)."""
        return linear(rows, self.weight, self.bias)


def use_inference_linear(model: nn.Module) -> None:
    """Replace every plain linear layer inside a model; its weights and their names stay."""
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear:
            model.set_submodule(name, InferenceLinear(layer))
