"""Image towers of open_clip and timm behind one face, so that the backbone can stop, or look inside, at any block.

N images, T tokens (class and register tokens first, then patches), D width, E embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import open_clip
import timm
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from stages.extract.demo_vit import demo_vit

if TYPE_CHECKING:
    from stages.extract.registry import BackboneCard


class Tower(Protocol):
    """A vision transformer that can be run block by block.

    Attributes:
        module: the model as its library builds it; its state dict is what weights files hold.
        blocks: its L transformer blocks.
        second_norms: the LayerNorm in front of each block's feed-forward layers.
        prefix: how many class and register tokens stand before the patches.
        has_class_token: whether token 0 is a class token.
        embeds_class_token: whether the embedding needs no other token than that.
    """

    module: nn.Module
    blocks: list[nn.Module]
    second_norms: list[nn.Module]
    prefix: int
    has_class_token: bool
    embeds_class_token: bool

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """(N, 3, S, S) normalised -> (N, T, D) tokens before the first block, and what the blocks need beside them."""

    def run(self, block: int, tokens: Tensor, beside: Any) -> Tensor:
        """(N, T, D) -> (N, T, D) through one block."""

    def run_class_token(self, block: int, tokens: Tensor, beside: Any) -> Tensor:
        """(N, T, D) -> (N, 1, D): the class token behind one block, nothing of the others where that can be spared."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens behind the last block -> (N, E), after final norm and projection."""

    @property
    def activation(self) -> str:
        """The activation of the feed-forward layers as built, "quickgelu" or "gelu"."""


class OpenClipTower:
    """open_clip's own VisionTransformer: the CLIP models, and the demo's."""

    prefix = 1
    has_class_token = True

    def __init__(self, model: VisionTransformer) -> None:
        self.module = model
        self._model = model
        self.blocks = list(model.transformer.resblocks)
        self.second_norms = [block.ln_2 for block in self.blocks]
        self.embeds_class_token = model.attn_pool is None and model.pool_type == "tok"

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """See :class:`Tower`."""
        return self._model._embeds(images), None

    def run(self, block: int, tokens: Tensor, beside: Any) -> Tensor:  # noqa: ARG002 - the protocol's
        """See :class:`Tower`."""
        moved: Tensor = self.blocks[block](tokens)
        return moved

    def run_class_token(self, block: int, tokens: Tensor, beside: Any) -> Tensor:  # noqa: ARG002 - the protocol's
        """See :class:`Tower`."""
        layer: Any = self.blocks[block]
        normed = layer.ln_1(tokens)  # (N, T, D): keys and values of all, the query of one
        own = tokens[:, :1] + layer.ls_1(layer.attention(normed[:, :1], normed, normed))
        moved: Tensor = own + layer.ls_2(layer.mlp(layer.ln_2(own)))
        return moved

    def embed(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        pooled: Tensor = self._model._pool(tokens)[0]
        return pooled if self._model.proj is None else pooled @ self._model.proj

    @property
    def activation(self) -> str:
        """See :class:`Tower`."""
        return "quickgelu" if isinstance(self._model.transformer.resblocks[0].mlp.gelu, QuickGELU) else "gelu"


class TimmTower:
    """timm's VisionTransformer and Eva (PE-Core, DINOv3), alone or inside open_clip's adapter."""

    activation = "gelu"  # timm builds these models with no other

    def __init__(self, model: nn.Module) -> None:
        self.module = model
        self._trunk: Any = getattr(model, "trunk", model)
        self._head = getattr(model, "head", nn.Identity()) if self._trunk is not model else nn.Identity()
        self.blocks = list(self._trunk.blocks)
        self.second_norms = [block.norm2 for block in self._trunk.blocks]
        self.prefix = int(self._trunk.num_prefix_tokens)
        self.has_class_token = self._trunk.cls_token is not None
        self.embeds_class_token = self._trunk.attn_pool is None and self._trunk.global_pool == "token"
        self._rotary = hasattr(self._trunk, "rope")

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """See :class:`Tower`."""
        tokens = self._trunk._pos_embed(self._trunk.patch_embed(images))
        tokens, beside = tokens if isinstance(tokens, tuple) else (tokens, None)
        return self._trunk.norm_pre(tokens), beside

    def run(self, block: int, tokens: Tensor, beside: Any) -> Tensor:
        """See :class:`Tower`."""
        moved: Tensor = self.blocks[block](tokens, **self._rope(beside))
        return moved

    def run_class_token(self, block: int, tokens: Tensor, beside: Any) -> Tensor:
        """See :class:`Tower`; attention is computed for all tokens, the feed-forward layers for one."""
        layer: Any = self.blocks[block]
        if type(layer) is Block:
            first, second = layer.ls1, layer.ls2
        elif type(layer) is EvaBlock:
            first, second = _scaled(layer.gamma_1), _scaled(layer.gamma_2)
        else:
            return self.run(block, tokens, beside)[:, :1]
        own = (tokens + first(layer.attn(layer.norm1(tokens), **self._rope(beside))))[:, :1]
        moved: Tensor = own + second(layer.mlp(layer.norm2(own)))
        return moved

    def embed(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        pooled: Tensor = self._head(self._trunk.forward_head(self._trunk.norm(tokens)))
        return pooled

    def _rope(self, beside: Any) -> dict[str, Any]:
        return {"rope": beside} if self._rotary else {}


def _scaled(gamma: Tensor | None) -> Any:
    return nn.Identity() if gamma is None else lambda values: gamma * values


def build_tower(card: BackboneCard, seed: int = 0) -> Tower:
    """Build the image tower of a backbone, and no text tower, with random weights.

    Args:
        card: which backbone.
        seed: of the weights; the same seed gives the same ones.
    """
    if card.library == "demo":
        return OpenClipTower(demo_vit(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if card.library == "timm":
            # "token" is DINOv3's own way, timm would average the patches; DINOv2 is built for 518 pixels otherwise
            options: Any = {"img_size": card.size} if "dinov2" in card.model else {}
            return TimmTower(timm.create_model(card.model, num_classes=0, global_pool="token", **options))
        config = open_clip.get_model_config(card.model)
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
    return OpenClipTower(visual) if isinstance(visual, VisionTransformer) else TimmTower(visual)
