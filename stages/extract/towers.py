"""Image towers of open_clip and timm behind one interface that can stop, or look inside, at any block.

The libraries build the models and hold their weights; the blocks are run here. ``forward_intermediates`` of both can
stop at a block too, but gives nothing from inside it (the tap "ln2_cls"), computes all tokens of the last block, and
runs open_clip's attention by MKL. tests/stages/extract/test_backbone.py compares all taps with it. Both libraries are
imported where one of their models is built; the demo's backbone needs neither.

torch gives products in single precision to MKL, which leaves half the width of AVX-512 units unused on CPUs that are
not Intel's; oneDNN, which torch brings along, uses all of it. On an AMD EPYC it takes half the time for every product
of a transformer block (docs/benchmarks.md), with results that differ by rounding.

N images, T tokens (class and register tokens first, then patches), D width, E embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from stages.extract.demo_vit import QuickGELU, demo_vit

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.extract.registry import BackboneCard

# Tokens behind a block, behind its second norm, and the class token's attention to the patches
Step = tuple[Tensor, Tensor, Tensor]

# The one private operator of torch that is used; pyproject.toml bounds torch's version. False: functional.linear.
USE_ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


class Tower:
    """A vision transformer that can be run block by block.

    Attributes:
        module: the model as its library builds it; its state dict is what weights files hold.
        blocks: its L transformer blocks.
        prefix: how many class and register tokens stand before the patches.
        has_class_token: whether token 0 is a class token.
        embeds_class_token: whether the embedding needs no other token than that.
        activation: of the feed-forward layers as built, "quickgelu" or "gelu".
    """

    blocks: list[nn.Module]
    prefix: int
    has_class_token: bool
    embeds_class_token: bool
    activation: str

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._run_all: Callable[[Any, Tensor, Any, bool], Step] = self._all_tokens
        self._run_class: Callable[[Any, Tensor, Any, bool], Step] = self._class_token
        for name, layer in list(module.named_modules()):
            if type(layer) is nn.Linear:
                module.set_submodule(name, InferenceLinear(layer))

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """(N, 3, S, S) normalised -> (N, T, D) tokens before the first block, and the blocks' other arguments."""
        raise NotImplementedError

    def run(
        self, block: int, tokens: Tensor, block_kwargs: Any, *, class_only: bool = False, attends: bool = False
    ) -> Step:
        """(N, T, D) -> (N, T, D) behind one block, and the same behind its norm in front of the feed-forward layers.

        With ``class_only`` both are (N, 1, D), the class token's, and nothing is computed of the others where that can
        be spared. The third is (N, P), how the class token attends to the patches, mean over heads; (N, 0) without
        ``attends``.
        """
        return (self._run_class if class_only else self._run_all)(self.blocks[block], tokens, block_kwargs, attends)

    def norm(self, tokens: Tensor) -> Tensor:
        """Tokens behind the last block -> the same after the final norm."""
        raise NotImplementedError

    def pool(self, tokens: Tensor) -> Tensor:
        """Tokens behind the last block -> (N, D), what is projected, after the final norm."""
        raise NotImplementedError

    def project(self, pooled: Tensor) -> Tensor:
        """(N, D) -> (N, E), the embedding."""
        raise NotImplementedError

    def compile(self) -> None:
        """Run the blocks through torch.compile from now on."""
        # torch gives up on a function that it had to compile eight times: for other numbers of images or threads, say.
        # So all blocks share one compiled function, and the last block's has its own count
        self._run_all, self._run_class = torch.compile(self._all_tokens), torch.compile(self._class_token)

    def _all_tokens(self, block: Any, tokens: Tensor, block_kwargs: Any, attends: bool) -> Step:
        return self._block(block, tokens, block_kwargs, tokens.shape[1], attends)

    def _class_token(self, block: Any, tokens: Tensor, block_kwargs: Any, attends: bool) -> Step:
        return self._block(block, tokens, block_kwargs, 1, attends)

    @staticmethod
    def _block(block: Any, tokens: Tensor, block_kwargs: Any, wanted: int, attends: bool) -> Step:
        """(N, T, D) -> (N, wanted, D) twice: the first tokens behind the block, and behind its second norm."""
        raise NotImplementedError


def build_tower(card: BackboneCard, seed: int = 0) -> Tower:
    """Build the image tower of a backbone, and no text tower, with random weights; the same seed gives the same."""
    if card.library == "demo":
        return ClipTower(demo_vit(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if card.library == "timm":
            import timm  # noqa: PLC0415 - slow to import

            # "token" is DINOv3's own way, timm would average the patches; DINOv2 is built for 518 pixels otherwise
            options: Any = {"img_size": card.size} if "dinov2" in card.model else {}
            return TimmTower(timm.create_model(card.model, num_classes=0, global_pool="token", **options))
        import open_clip  # noqa: PLC0415 - slow to import
        from open_clip.model import _build_vision_tower  # noqa: PLC0415 - what is public builds the text tower too

        config = open_clip.get_model_config(card.model)
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
        return TimmTower(visual) if hasattr(visual, "trunk") else ClipTower(visual)


class ClipTower(Tower):
    """open_clip's VisionTransformer, or a model with the same attributes such as the demo's."""

    prefix, has_class_token, embeds_class_token = 1, True, True

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._model = model
        self.blocks = list(model.transformer.resblocks)
        self.activation = type(model.transformer.resblocks[0].mlp.gelu).__name__.lower()
        if self.activation == "quickgelu":
            for block in model.transformer.resblocks:
                block.mlp.gelu = QuickGELU()

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """See :class:`Tower`."""
        model = self._model
        patches = model.conv1(images).float().flatten(2).transpose(1, 2)  # (N, T - 1, D)
        first = model.class_embedding.expand(len(images), 1, -1)
        tokens: Tensor = model.ln_pre(torch.cat([first, patches], dim=1) + model.positional_embedding)
        return tokens, None

    def norm(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        normed: Tensor = self._model.ln_post(tokens)
        return normed

    def pool(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        return self.norm(tokens[:, 0])

    def project(self, pooled: Tensor) -> Tensor:
        """See :class:`Tower`."""
        embedding: Tensor = pooled @ self._model.proj
        return embedding

    @staticmethod
    def _block(block: Any, tokens: Tensor, block_kwargs: Any, wanted: int, attends: bool) -> Step:  # noqa: ARG004
        gathered, attention = _attend(block.attn, block.ln_1(tokens), wanted, attends)
        own = tokens[:, :wanted] + block.ls_1(gathered)
        normed = block.ln_2(own)
        return own + block.ls_2(block.mlp(normed)), normed, attention


class TimmTower(Tower):
    """timm's VisionTransformer and Eva (PE-Core, DINOv3), alone or inside open_clip's adapter."""

    activation = "gelu"  # timm builds these models with no other

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._trunk: Any = getattr(model, "trunk", model)
        self._head: Any = nn.Identity() if self._trunk is model else model.head
        self.blocks = list(self._trunk.blocks)
        self.prefix = int(self._trunk.num_prefix_tokens)
        self.has_class_token = self._trunk.cls_token is not None
        self.embeds_class_token = self._trunk.attn_pool is None and self._trunk.global_pool == "token"

    def start(self, images: Tensor) -> tuple[Tensor, Any]:
        """See :class:`Tower`; Eva's blocks need a rotary embedding, which timm makes in no public function."""
        tokens = self._trunk._pos_embed(self._trunk.patch_embed(images))
        tokens, rotary = tokens if isinstance(tokens, tuple) else (tokens, None)
        return self._trunk.norm_pre(tokens), {"rope": rotary} if hasattr(self._trunk, "rope") else {}

    def norm(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        normed: Tensor = self._trunk.norm(tokens)
        return normed

    def pool(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        pooled: Tensor = self._trunk.forward_head(self.norm(tokens), pre_logits=True)
        return pooled

    def project(self, pooled: Tensor) -> Tensor:
        """See :class:`Tower`."""
        embedding: Tensor = self._head(self._trunk.head(pooled))
        return embedding

    @staticmethod
    def _block(block: Any, tokens: Tensor, block_kwargs: Any, wanted: int, attends: bool) -> Step:  # noqa: ARG004
        scales = (block.ls1, block.ls2) if hasattr(block, "ls1") else (_scaled(block.gamma_1), _scaled(block.gamma_2))
        own = (tokens + scales[0](block.attn(block.norm1(tokens), **block_kwargs)))[:, :wanted]
        normed = block.norm2(own)
        return own + scales[1](block.mlp(normed)), normed, tokens.new_empty(len(tokens), 0)


class InferenceLinear(nn.Module):
    """A linear layer that is only run, never trained; weights and their names are those of ``layer``."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, rows: Tensor) -> Tensor:
        """(..., K) -> (..., M)."""
        return linear(rows, self.weight, self.bias)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., K) by the weight (M, K) and the bias (M,) -> (..., M); without gradients."""
    # torch.compile fuses linear layers in its own way, and autocast works on torch's own function
    if rows.device.type != "cpu" or rows.dtype != torch.float32 or torch.compiler.is_compiling():
        return functional.linear(rows, weight, bias)
    if not USE_ONEDNN or torch.is_autocast_enabled("cpu"):
        return functional.linear(rows, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def _attend(attention: nn.MultiheadAttention, normed: Tensor, wanted: int, attends: bool) -> tuple[Tensor, Tensor]:
    """(N, T, D) -> (N, wanted, D): what the first tokens gather from all; and (N, P), the first one's mean weights."""
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
    weights = normed.new_empty(len(normed), 0)
    if attends:  # scaled_dot_product_attention gives none
        scores = query[:, :, :1].float() @ key.float().transpose(2, 3)  # (N, heads, 1, T)
        weights = (scores * query.shape[3] ** -0.5).softmax(3).mean(1)[:, 0, 1:]
    return linear(gathered, attention.out_proj.weight, attention.out_proj.bias), weights


def _scaled(gamma: Tensor | None) -> Callable[[Tensor], Tensor]:
    return nn.Identity() if gamma is None else gamma.mul
