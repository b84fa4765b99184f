"""timm's vision transformers, run block by block."""

from __future__ import annotations

from typing import Any

from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from stages.extract.linear import use_onednn


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
        use_onednn(model)

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """See :class:`stages.extract.towers.Tower`."""
        tokens = self._trunk._pos_embed(self._trunk.patch_embed(images))
        tokens, beside = tokens if isinstance(tokens, tuple) else (tokens, None)
        return self._trunk.norm_pre(tokens), beside

    def run(self, block: int, tokens: Tensor, beside: Any) -> Tensor:
        """See :class:`stages.extract.towers.Tower`."""
        moved: Tensor = self.blocks[block](tokens, **self._rope(beside))
        return moved

    def run_class_token(self, block: int, tokens: Tensor, beside: Any) -> Tensor:
        """See :class:`stages.extract.towers.Tower`; attention is computed for all, the feed-forward layers for one."""
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
        """See :class:`stages.extract.towers.Tower`."""
        pooled: Tensor = self._head(self._trunk.forward_head(self._trunk.norm(tokens)))
        return pooled

    def compile(self) -> None:
        """See :class:`stages.extract.towers.Tower`."""
        for block in self.blocks:
            block.compile()

    def _rope(self, beside: Any) -> dict[str, Any]:
        return {"rope": beside} if self._rotary else {}


def _scaled(gamma: Tensor | None) -> Any:
    return nn.Identity() if gamma is None else lambda values: gamma * values
