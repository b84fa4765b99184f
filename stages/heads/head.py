"""What every head is: a module from the features it reads to one logit an image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from stages.heads.settings import HeadTap


@dataclass(frozen=True)
class Reads:
    """Which features a head reads.

    Args:
        tap: ``cls``, CLS tokens after residual blocks; ``ln2_cls``, those after a block's second layer norm; or
            ``embedding``, the backbone's final embedding.
        blocks: the 0-based blocks whose CLS tokens are read, in the order of axis 1; empty for the embedding.
    """

    tap: HeadTap
    blocks: tuple[int, ...] = ()


class Head(nn.Module, ABC):
    """Base of all heads. In training it may draw from torch's global generator; in evaluation it draws nothing.

    Args:
        reads: the features to hand to ``forward``.
        feature_shape: shape of one image's features, (len(reads.blocks), D) or (E,).
    """

    def __init__(self, reads: Reads, feature_shape: tuple[int, ...]) -> None:
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
        """What training minimises, a scalar: binary cross-entropy, mean over the batch, unless a method says other.

        Args:
            features: as for ``forward``.
            labels: (N,) float32, 0 real, 1 synthetic.
        """
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
