"""A small vision transformer with seeded random weights: the demo's backbone, no file and no download.

Plain random weights carry no usable signal. These do: the patch filters look at high spatial frequencies, where
decoders leave their traces, and the blocks are scaled up so that the class token moves from block to block.
"""

from __future__ import annotations

import numpy as np
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from scipy.fft import idctn

BLOCKS, WIDTH, PATCH, ATTENTION_HEADS, IMAGE_SIZE, EMBEDDING = 24, 128, 16, 4, 224, 64


def demo_vit(seed: int) -> VisionTransformer:
    """Build the transformer; the same seed gives the same weights.

    Recipe: patch-embedding filters are random 2-D DCT coefficients times the squared frequency radius, rescaled to
    standard deviation 0.05; block weight matrices times 1.5; class embedding times 0.3; positional embedding times 0.1.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = VisionTransformer(
            image_size=IMAGE_SIZE,
            patch_size=PATCH,
            width=WIDTH,
            layers=BLOCKS,
            heads=ATTENTION_HEADS,
            mlp_ratio=4.0,
            output_dim=EMBEDDING,
            act_layer=QuickGELU,
        )
        model.conv1.weight.copy_(_high_frequency_filters(seed))
        for name, weight in model.transformer.named_parameters():
            if weight.ndim == 2 and name.endswith("weight"):
                weight.mul_(1.5)
        model.class_embedding.mul_(0.3)
        model.positional_embedding.mul_(0.1)
    return model


def _high_frequency_filters(seed: int) -> torch.Tensor:
    """Return patch filters of shape (WIDTH, 3, PATCH, PATCH)."""
    frequency = np.arange(PATCH)
    radius_squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    coefficients = np.random.default_rng(seed).standard_normal((WIDTH, 3, PATCH, PATCH)) * radius_squared
    filters = idctn(coefficients, axes=(2, 3), norm="ortho")
    return torch.from_numpy(filters * (0.05 / filters.std())).float()
