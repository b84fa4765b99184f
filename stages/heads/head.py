"""What every head is: a module from the features it reads to one logit per image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from stages.heads.settings import HeadTap

_STEPS = 2**16


@dataclass(frozen=True)
class HeadInput:
    """Which features a head reads.

    Args:
        tap: ``cls``, CLS tokens after residual blocks; ``ln2_cls``, those after a block's second layer norm; or one
            vector an image: ``embedding``, ``pooled`` or ``mean``.
        blocks: the 0-based blocks whose CLS tokens are read, in the order of axis 1; empty for one vector an image.
    """

    tap: HeadTap
    blocks: tuple[int, ...] = ()


class Head(nn.Module, ABC):
    """Base of all heads. In training it may draw from torch's global generator; in evaluation it draws nothing.

    Args:
        reads: the features to hand to ``forward``.
        feature_shape: shape of one image's features, (len(reads.blocks), D) or (E,).

    Attributes:
        classifier: the last layer. By what it reads, images are compared with those of a calibration.
    """

    classifier: nn.Module

    def __init__(self, reads: HeadInput, feature_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.reads = reads
        self.feature_shape = feature_shape

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Logits (N,) of float32 features (N, *feature_shape); > 0 means synthetic.

        Raises:
            ValueError: the features are of another shape.
        """

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """What training minimises, a scalar; ``labels`` (N,) float32, 0 real, 1 synthetic."""
        return binary_cross_entropy_with_logits(self(features), labels)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for a torch optimizer, each with ``params`` and ``lr``."""
        return [{"params": list(self.parameters()), "lr": lr}]

    def advance(self, steps_done: int) -> None:
        """Called before each step with the number of completed steps, for schedules of the head's own.

        Taking the count, not counting, leaves nothing to restore when training is resumed.
        """

    def describe(self) -> dict[str, JsonValue]:
        """Facts learned in training, for the metadata."""
        return {}

    def _check(self, features: Tensor) -> None:
        if features.shape[1:] != self.feature_shape:
            raise ValueError(
                f"expected features (N, {', '.join(map(str, self.feature_shape))}) "
                f"for {self.reads}, found {tuple(features.shape)}"
            )


class Dropout(nn.Dropout):
    """As ``nn.Dropout``, at a quarter of its cost on a CPU, where drawing masks costs the most beside the products.

    Masks come from 16 random bits an element: p is rounded to a multiple of 2^-16. On other devices, and where the last
    axis is no multiple of 4 (a 64-bit draw serves 4 elements), it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero each element with probability p in training and scale the others by 1 / (1 - p)."""
        if not self.training or self.p == 0 or x.device.type != "cpu" or x.shape[-1] % 4:
            return super().forward(x)
        dropped = round(self.p * _STEPS)
        words = torch.empty_like(x[..., ::4], dtype=torch.int64, memory_format=torch.contiguous_format)
        bits = words.random_(-(2**63), None).view(torch.int16)  # same shape as x, uniform in -2^15 .. 2^15 - 1
        keep = (bits >= dropped - _STEPS // 2).to(x.dtype).mul_(_STEPS / (_STEPS - dropped))
        return x * keep
