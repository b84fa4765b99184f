"""Image towers of open_clip and timm behind one face, so that the backbone can stop, or look inside, at any block.

Both are imported where one of their models is built; the demo's backbone needs neither.

N images, T tokens (class and register tokens first, then patches), D width, E embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from stages.extract.clip_tower import ClipTower
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

    def compile(self) -> None:
        """Run the blocks through torch.compile from now on."""

    @property
    def activation(self) -> str:
        """The activation of the feed-forward layers as built, "quickgelu" or "gelu"."""


def build_tower(card: BackboneCard, seed: int = 0) -> Tower:
    """Build the image tower of a backbone, and no text tower, with random weights.

    Args:
        card: which backbone.
        seed: of the weights; the same seed gives the same ones.
    """
    if card.library == "demo":
        return ClipTower(demo_vit(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _timm_tower(card) if card.library == "timm" else _open_clip_tower(card)


def _timm_tower(card: BackboneCard) -> Tower:
    import timm  # noqa: PLC0415 - slow to import

    from stages.extract.timm_tower import TimmTower  # noqa: PLC0415 - as above

    # "token" is DINOv3's own way, timm would average the patches; DINOv2 is built for 518 pixels otherwise
    options: Any = {"img_size": card.size} if "dinov2" in card.model else {}
    return TimmTower(timm.create_model(card.model, num_classes=0, global_pool="token", **options))


def _open_clip_tower(card: BackboneCard) -> Tower:
    import open_clip  # noqa: PLC0415 - slow to import
    from open_clip.model import _build_vision_tower  # noqa: PLC0415 - as above
    from open_clip.transformer import VisionTransformer  # noqa: PLC0415 - as above

    from stages.extract.timm_tower import TimmTower  # noqa: PLC0415 - as above

    config = open_clip.get_model_config(card.model)
    visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
    return ClipTower(visual) if isinstance(visual, VisionTransformer) else TimmTower(visual)
