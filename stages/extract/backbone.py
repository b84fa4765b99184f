"""Frozen backbones: from uint8 pixels to one class token per transformer block, and the final embedding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import QuickGELU, VisionTransformer

from stages.extract.demo_vit import demo_vit
from storage.atomic import sha256_of
from storage.errors import ResourceError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Backbone:
    """A frozen vision transformer on its device.

    Attributes:
        name: in ``BACKBONES``.
        model: open_clip's image tower, in eval mode, without gradients.
        weights: sha256 over names and values of all its parameters, hex.
        device: where it runs.
        precision: "fp32", or "fp16": fp16 matrix products, with the residual stream in fp32.
    """

    name: str
    model: VisionTransformer
    weights: str
    device: torch.device
    precision: str
    mean: tuple[float, float, float] = OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = OPENAI_DATASET_STD

    @property
    def blocks(self) -> int:
        """L, the number of transformer blocks."""
        return len(self.model.transformer.resblocks)

    @property
    def width(self) -> int:
        """D, the width of a token."""
        return int(self.model.transformer.width)

    @property
    def embedding(self) -> int:
        """E, the width of the final embedding."""
        return int(self.model.output_dim)

    @property
    def activation(self) -> str:
        """Name of the activation of the feed-forward layers."""
        return "quickgelu" if isinstance(self.model.transformer.resblocks[0].mlp.gelu, QuickGELU) else "gelu"

    @torch.inference_mode()
    def taps(self, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """Run the backbone.

        Args:
            pixels: (N, H, W, 3) uint8 RGB.

        Returns:
            "cls": (L, N, D), the class token after each residual block, before the final norm, raw;
            "embedding": (N, E), after final norm and projection. Both float32 on the CPU.
        """
        scaled = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float().div_(255)  # (N, 3, H, W)
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (self.mean, self.std))
        tokens = self.model._embeds((scaled - mean) / std)  # (N, 1 + patches, D)
        cls = []
        with torch.autocast(self.device.type, torch.float16, enabled=self.precision == "fp16"):
            for block in self.model.transformer.resblocks:
                tokens = block(tokens)
                cls.append(tokens[:, 0].float())
        pooled, _ = self.model._pool(tokens.float())
        return {"cls": torch.stack(cls).cpu(), "embedding": (pooled @ self.model.proj).cpu()}


def load_backbone(name: str, *, weights: str, precision: str) -> Backbone:
    """Build a backbone on the best device at hand, with its weights.

    Args:
        name: in ``BACKBONES``.
        weights: "default", "random:SEED" or the path of a local weights file.
        precision: "fp32", "fp16" or "auto" (fp16 on CUDA, else fp32; a CPU without native bf16 or fp16 is slower
            with them, and bf16 moves mid-block features by 1 %).

    Raises:
        SettingError: unknown name, unusable weights setting, or fp16 without CUDA.
        ResourceError: weights can neither be found nor downloaded.
    """
    if name not in BACKBONES:
        raise SettingError(f"backbone {name!r} is not known; choose from {', '.join(BACKBONES)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "fp16" and device.type != "cuda":
        raise SettingError("extract.precision fp16 needs a CUDA device, and none is here; use auto or fp32")
    model = BACKBONES[name](weights).to(device).eval().requires_grad_(False)
    resolved = ("fp16" if device.type == "cuda" else "fp32") if precision == "auto" else precision
    return Backbone(name, model, _weights_hash(model), device, resolved)


def _demo(weights: str) -> VisionTransformer:
    if weights == "default":
        weights = "random:0"
    seed = _random_seed(weights)
    if seed is None:
        raise SettingError(f"extract.weights {weights!r}: demo-vit has no weights file; use default or random:SEED")
    return demo_vit(seed)


def _open_clip(model_name: str, tag: str) -> Callable[[str], VisionTransformer]:
    """Return a builder of the image tower of an open_clip model."""

    def build(weights: str) -> VisionTransformer:
        seed = _random_seed(weights)
        if seed is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return open_clip.create_model(model_name).visual
        if weights != "default":
            sha256_of(Path(weights))  # a missing file gets the same clear message as everywhere
        try:
            return open_clip.create_model(model_name, pretrained=tag if weights == "default" else weights).visual
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ResourceError(
                f"weights {weights!r} of {model_name} cannot be loaded ({reason}); without internet, name a local "
                "file in extract.weights, or use the backbone demo-vit"
            ) from error

    return build


# Name -> builder of the image tower from a weights setting. A name fixes the activation: OpenAI's weights belong to
# QuickGELU, and the plain open_clip model of the same shape silently gives other features.
BACKBONES: dict[str, Callable[[str], VisionTransformer]] = {
    "demo-vit": _demo,
    "clip-vit-l-14": _open_clip("ViT-L-14-quickgelu", "openai"),
}


def _random_seed(weights: str) -> int | None:
    kind, _, seed = weights.partition(":")
    if kind != "random":
        return None
    if not seed.isdecimal():
        raise SettingError(f"extract.weights {weights!r}: expected random:SEED with a whole number, as in random:0")
    return int(seed)


def _weights_hash(model: VisionTransformer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
