"""A small vision transformer with seeded random weights: the demo's backbone, no file and no download.

Plain random weights carry no usable signal. These do: the patch filters look at high spatial frequencies, where
decoders leave their traces, and the blocks are scaled up so that the class token moves from block to block.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from scipy.fft import idctn
from torch import Tensor, nn

BLOCKS, WIDTH, PATCH, ATTENTION_HEADS, IMAGE_SIZE, EMBEDDING = 24, 128, 16, 4, 224, 64


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIP: x times the sigmoid of 1.702 x, with one copy where open_clip makes three."""

    def forward(self, values: Tensor) -> Tensor:
        """(...) -> (...)."""
        return (1.702 * values).sigmoid_().mul_(values)


class DemoVit(nn.Module):
    """Weights of a CLIP vision transformer under open_clip's names; ``ClipTower`` runs them."""

    def __init__(self) -> None:
        super().__init__()
        scale, tokens = WIDTH**-0.5, (IMAGE_SIZE // PATCH) ** 2 + 1
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(scale * torch.randn(tokens, WIDTH))
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(_Block() for _ in range(BLOCKS))})
        self.ln_post = nn.LayerNorm(WIDTH)
        self.proj = nn.Parameter(scale * torch.randn(WIDTH, EMBEDDING))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, ATTENTION_HEADS, batch_first=True)
        self.ls_1, self.ls_2 = nn.Identity(), nn.Identity()  # where other models have a LayerScale
        self.ln_2 = nn.LayerNorm(WIDTH)
        layers = {"c_fc": nn.Linear(WIDTH, 4 * WIDTH), "gelu": QuickGELU(), "c_proj": nn.Linear(4 * WIDTH, WIDTH)}
        self.mlp = nn.Sequential(OrderedDict(layers))


def demo_vit(seed: int) -> DemoVit:
    """Build the transformer; the same seed gives the same weights.

    Recipe: patch-embedding filters are random 2-D DCT coefficients times the squared frequency radius, rescaled to
    standard deviation 0.05; block weight matrices times 1.5; class embedding times 0.3; positional embedding times 0.1.
    """
    frequency = np.arange(PATCH)
    radius_squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    coefficients = np.random.default_rng(seed).standard_normal((WIDTH, 3, PATCH, PATCH)) * radius_squared
    filters = idctn(coefficients, axes=(2, 3), norm="ortho")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = DemoVit()
        model.conv1.weight.copy_(torch.from_numpy(filters * (0.05 / filters.std())).float())
        for name, weight in model.transformer.named_parameters():
            if weight.ndim == 2 and name.endswith("weight"):
                weight.mul_(1.5)
        model.class_embedding.mul_(0.3)
        model.positional_embedding.mul_(0.1)
    return model
