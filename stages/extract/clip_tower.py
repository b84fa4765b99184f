"""CLIP's vision transformer, run block by block: open_clip's models, and the demo's, which has the same names.

The library builds the model and holds its weights; the forward pass is here, since open_clip's own can neither stop at
a block nor spare the patches in the last one, and leaves half of some CPUs unused (see :mod:`stages.extract.linear`).
tests/stages/extract/test_backbone.py compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from stages.extract.linear import linear, use_onednn

if TYPE_CHECKING:
    from collections.abc import Callable


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIP: x times the sigmoid of 1.702 x."""

    def forward(self, values: Tensor) -> Tensor:
        """(...) -> (...), with one copy instead of three."""
        return (1.702 * values).sigmoid_().mul_(values)


class ClipTower:
    """See :class:`stages.extract.towers.Tower`."""

    prefix = 1
    has_class_token = True
    embeds_class_token = True

    def __init__(self, model: Any) -> None:
        """Take open_clip's VisionTransformer, or a model with the same attributes."""
        self.module: nn.Module = model
        self._model = model
        self.blocks: list[nn.Module] = list(model.transformer.resblocks)
        self.second_norms: list[nn.Module] = [block.ln_2 for block in model.transformer.resblocks]
        self._whole: Callable[[Any, Tensor], Tensor] = _whole
        self._class_token: Callable[[Any, Tensor], Tensor] = _class_token
        use_onednn(model)
        if self.activation == "quickgelu":
            for block in model.transformer.resblocks:
                block.mlp.gelu = QuickGELU()

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """See :class:`stages.extract.towers.Tower`."""
        model = self._model
        patches = model.conv1(images).float().flatten(2).transpose(1, 2)  # (N, T - 1, D)
        first = model.class_embedding.expand(len(images), 1, -1)
        tokens: Tensor = model.ln_pre(torch.cat([first, patches], dim=1) + model.positional_embedding)
        return tokens, None

    def run(self, block: int, tokens: Tensor, beside: Any) -> Tensor:  # noqa: ARG002 - the protocol's
        """See :class:`stages.extract.towers.Tower`."""
        return self._whole(self.blocks[block], tokens)

    def run_class_token(self, block: int, tokens: Tensor, beside: Any) -> Tensor:  # noqa: ARG002 - the protocol's
        """See :class:`stages.extract.towers.Tower`."""
        return self._class_token(self.blocks[block], tokens)

    def embed(self, tokens: Tensor) -> Tensor:
        """See :class:`stages.extract.towers.Tower`."""
        embedding: Tensor = self._model.ln_post(tokens[:, 0]) @ self._model.proj
        return embedding

    def compile(self) -> None:
        """See :class:`stages.extract.towers.Tower`."""
        # torch gives up on a function that it had to compile eight times: for other numbers of images or threads, say.
        # So all blocks share one compiled function, and the last block's has its own count
        self._whole, self._class_token = torch.compile(_whole), torch.compile(_class_token)

    @property
    def activation(self) -> str:
        """See :class:`stages.extract.towers.Tower`."""
        return type(self._model.transformer.resblocks[0].mlp.gelu).__name__.lower()


def _whole(block: Any, tokens: Tensor) -> Tensor:
    return _pass(block, tokens, tokens.shape[1])


def _class_token(block: Any, tokens: Tensor) -> Tensor:
    return _pass(block, tokens, 1)


def _pass(block: Any, tokens: Tensor, wanted: int) -> Tensor:
    """(N, T, D) -> (N, wanted, D): the first tokens behind one block; keys and values are those of all."""
    own = tokens[:, :wanted] + block.ls_1(_attend(block.attn, block.ln_1(tokens), wanted))
    moved: Tensor = own + block.ls_2(block.mlp(block.ln_2(own)))
    return moved


def _attend(attention: nn.MultiheadAttention, normed: Tensor, wanted: int) -> Tensor:
    """(N, T, D) -> (N, wanted, D): what the first tokens gather from all."""
    width = attention.embed_dim
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if wanted == normed.shape[1]:
        query, key, value = linear(normed, weight, bias).chunk(3, dim=2)
    else:
        query = linear(normed[:, :wanted], weight[:width], bias[:width])
        key, value = linear(normed, weight[width:], bias[width:]).chunk(2, dim=2)
    query, key, value = (
        part.reshape(*part.shape[:2], attention.num_heads, -1).transpose(1, 2) for part in (query, key, value)
    )
    gathered = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # (N, wanted, D)
    return linear(gathered, attention.out_proj.weight, attention.out_proj.bias)
