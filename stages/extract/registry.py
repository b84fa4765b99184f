"""The backbones by name: facts that are known without building one. This module imports no torch.

tests/stages/extract/test_registry.py builds each one (without memory for its weights) and compares. Licences are those
of the weights, as their publishers state them; the hashes are those in OpenAI's own download addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """What a backbone is.

    Attributes:
        name: what settings call it.
        library: who builds it: "open_clip", "timm", or "demo" (random weights, made here).
        model: the library's name of the architecture.
        tag: open_clip's name of the weights, or timm's.
        activation: of the feed-forward layers. A name fixes it: the wrong one silently gives other features.
        blocks: L.
        width: D.
        embedding: E.
        size: S, the side of the input in pixels.
        patch: side of a patch in pixels, of CLIP's models; None for others, whose tap "attention" is not read.
        licence: of the weights.
        token: which token of a block the tap "cls" reads: its class token, or where there is none the mean of its patch
            tokens.
        sha256: of the file that ``ltdpipe fetch`` gets, where it is known beforehand.
        mean: per-channel mean of the normalisation, on the 0..1 scale.
        std: per-channel standard deviation.
    """

    name: str
    library: Literal["open_clip", "timm", "demo"]
    model: str
    tag: str = ""
    activation: Literal["quickgelu", "gelu"]
    blocks: int
    width: int
    embedding: int
    size: int = 224
    patch: int | None = None
    licence: str
    token: Literal["class", "patch-mean"] = "class"  # noqa: S105 - no password
    sha256: str | None = None
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def patches(self) -> int | None:
        """P, the number of patches; None where ``patch`` is."""
        return None if self.patch is None else (self.size // self.patch) ** 2


# What the members of a family have in common.
_CLIP = partial(BackboneCard, library="open_clip", tag="openai", activation="quickgelu", patch=14, licence="MIT")
_SIGLIP = partial(
    BackboneCard, library="open_clip", tag="webli", activation="gelu", licence="Apache-2.0", token="patch-mean",  # noqa: S106 - as above
    mean=_HALF, std=_HALF,
)  # fmt: skip
_PE_CORE = partial(
    BackboneCard, library="open_clip", tag="meta", activation="gelu", licence="Apache-2.0", mean=_HALF, std=_HALF
)
_DINO = partial(
    BackboneCard, library="timm", activation="gelu", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)  # ImageNet's
_DINO_V2 = partial(_DINO, tag="lvd142m", licence="Apache-2.0")
_DINO_V3 = partial(_DINO, tag="lvd1689m", licence="DINOv3 License")

_CARDS = (
    _CLIP(
        name="clip-vit-l-14", model="ViT-L-14-quickgelu", blocks=24, width=1024, embedding=768,
        sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    _CLIP(
        name="clip-vit-b-16", model="ViT-B-16-quickgelu", patch=16, blocks=12, width=768, embedding=512,
        sha256="5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    ),
    _CLIP(
        name="clip-vit-b-32", model="ViT-B-32-quickgelu", patch=32, blocks=12, width=768, embedding=512,
        sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    _CLIP(
        name="clip-vit-l-14-336", model="ViT-L-14-336-quickgelu", blocks=24, width=1024, embedding=768, size=336,
        sha256="3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
    BackboneCard(
        name="openclip-vit-l-14", library="open_clip", model="ViT-L-14", tag="laion2b_s32b_b82k", activation="gelu",
        blocks=24, width=1024, embedding=768, patch=14, licence="MIT", mean=_HALF, std=_HALF,
    ),
    BackboneCard(
        name="metaclip2-vit-h-14", library="open_clip", model="ViT-H-14-worldwide-quickgelu", tag="metaclip2_worldwide",
        activation="quickgelu", patch=14, blocks=32, width=1280, embedding=1024, licence="CC-BY-NC-4.0",
    ),
    _SIGLIP(name="siglip2-vit-b-16", model="ViT-B-16-SigLIP2", blocks=12, width=768, embedding=768),
    _SIGLIP(name="siglip2-vit-l-16-256", model="ViT-L-16-SigLIP2-256", blocks=24, width=1024, embedding=1024, size=256),
    _SIGLIP(name="siglip2-so400m-14", model="ViT-SO400M-14-SigLIP2", blocks=27, width=1152, embedding=1152),
    _PE_CORE(name="pe-core-b-16", model="PE-Core-B-16", blocks=12, width=768, embedding=1024),
    _PE_CORE(name="pe-core-l-14-336", model="PE-Core-L-14-336", blocks=24, width=1024, embedding=1024, size=336),
    _DINO_V2(name="dinov2-vit-b-14", model="vit_base_patch14_reg4_dinov2", blocks=12, width=768, embedding=768),
    _DINO_V2(name="dinov2-vit-l-14", model="vit_large_patch14_reg4_dinov2", blocks=24, width=1024, embedding=1024),
    _DINO_V3(name="dinov3-vit-b-16", model="vit_base_patch16_dinov3", blocks=12, width=768, embedding=768),
    _DINO_V3(name="dinov3-vit-l-16", model="vit_large_patch16_dinov3", blocks=24, width=1024, embedding=1024),
    BackboneCard(
        name="demo-vit", library="demo", model="demo-vit", activation="quickgelu", blocks=24, width=128, embedding=64,
        licence="made here", patch=16,
    ),
)  # fmt: skip

BACKBONES: dict[str, BackboneCard] = {card.name: card for card in _CARDS}


def has_random_weights(backbone: str, weights: str) -> bool:
    """Say whether a backbone's weights, as settings or a feature spec state them, are random."""
    return weights.startswith("random:") or (backbone in BACKBONES and BACKBONES[backbone].library == "demo")
