"""The backbones by name: facts that are known without building one. This module imports no torch.

tests/stages/extract/test_registry.py builds each one (without memory for its weights) and compares. Licences are those
of the weights, as their publishers state them; the hashes are those in OpenAI's own download addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_OPENAI_MEAN, _OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
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
    licence: str
    token: Literal["class", "patch-mean"] = "class"  # noqa: S105 - no password
    sha256: str | None = None
    mean: tuple[float, float, float] = _OPENAI_MEAN
    std: tuple[float, float, float] = _OPENAI_STD


def _clip(  # noqa: PLR0917 - a row of a table
    name: str, model: str, sha256: str, blocks: int, width: int, embedding: int, size: int = 224
) -> BackboneCard:
    return BackboneCard(
        name=name,
        library="open_clip",
        model=model,
        tag="openai",
        activation="quickgelu",
        blocks=blocks,
        width=width,
        embedding=embedding,
        size=size,
        licence="MIT",
        sha256=sha256,
    )


def _siglip2(name: str, model: str, blocks: int, width: int, size: int) -> BackboneCard:
    return BackboneCard(
        name=name,
        library="open_clip",
        model=model,
        tag="webli",
        activation="gelu",
        blocks=blocks,
        width=width,
        embedding=width,
        size=size,
        licence="Apache-2.0",
        token="patch-mean",  # noqa: S106 - no password
        mean=_HALF,
        std=_HALF,
    )


def _pe_core(name: str, model: str, blocks: int, width: int, size: int) -> BackboneCard:
    return BackboneCard(
        name=name,
        library="open_clip",
        model=model,
        tag="meta",
        activation="gelu",
        blocks=blocks,
        width=width,
        embedding=1024,
        size=size,
        licence="Apache-2.0",
        mean=_HALF,
        std=_HALF,
    )


def _dino(  # noqa: PLR0917 - a row of a table
    name: str, model: str, tag: str, licence: str, blocks: int, width: int
) -> BackboneCard:
    return BackboneCard(
        name=name,
        library="timm",
        model=model,
        tag=tag,
        activation="gelu",
        blocks=blocks,
        width=width,
        embedding=width,
        licence=licence,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
    )


_CARDS = (
    _clip(
        "clip-vit-l-14",
        "ViT-L-14-quickgelu",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        24,
        1024,
        768,
    ),
    _clip(
        "clip-vit-b-16",
        "ViT-B-16-quickgelu",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        12,
        768,
        512,
    ),
    _clip(
        "clip-vit-b-32",
        "ViT-B-32-quickgelu",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
        12,
        768,
        512,
    ),
    _clip(
        "clip-vit-l-14-336",
        "ViT-L-14-336-quickgelu",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        24,
        1024,
        768,
        336,
    ),
    BackboneCard(
        name="openclip-vit-l-14",
        library="open_clip",
        model="ViT-L-14",
        tag="laion2b_s32b_b82k",
        activation="gelu",
        blocks=24,
        width=1024,
        embedding=768,
        licence="MIT",
        mean=_HALF,
        std=_HALF,
    ),
    BackboneCard(
        name="metaclip2-vit-h-14",
        library="open_clip",
        model="ViT-H-14-worldwide-quickgelu",
        tag="metaclip2_worldwide",
        activation="quickgelu",
        blocks=32,
        width=1280,
        embedding=1024,
        licence="CC-BY-NC-4.0",
    ),
    _siglip2("siglip2-vit-b-16", "ViT-B-16-SigLIP2", 12, 768, 224),
    _siglip2("siglip2-vit-l-16-256", "ViT-L-16-SigLIP2-256", 24, 1024, 256),
    _siglip2("siglip2-so400m-14", "ViT-SO400M-14-SigLIP2", 27, 1152, 224),
    _pe_core("pe-core-b-16", "PE-Core-B-16", 12, 768, 224),
    _pe_core("pe-core-l-14-336", "PE-Core-L-14-336", 24, 1024, 336),
    _dino("dinov2-vit-b-14", "vit_base_patch14_reg4_dinov2", "lvd142m", "Apache-2.0", 12, 768),
    _dino("dinov2-vit-l-14", "vit_large_patch14_reg4_dinov2", "lvd142m", "Apache-2.0", 24, 1024),
    _dino("dinov3-vit-b-16", "vit_base_patch16_dinov3", "lvd1689m", "DINOv3 License", 12, 768),
    _dino("dinov3-vit-l-16", "vit_large_patch16_dinov3", "lvd1689m", "DINOv3 License", 24, 1024),
    BackboneCard(
        name="demo-vit",
        library="demo",
        model="demo-vit",
        activation="quickgelu",
        blocks=24,
        width=128,
        embedding=64,
        licence="made here",
    ),
)

BACKBONES: dict[str, BackboneCard] = {card.name: card for card in _CARDS}
