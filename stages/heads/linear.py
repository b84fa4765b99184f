"""Linear probes: one block's CLS token, all blocks', or one of the image: UnivFD's (CVPR 2023) on the embedding."""

import math

from torch import Tensor, nn

from stages.heads.head import Head, HeadInput
from stages.heads.settings import LinearSettings
from storage.errors import SettingError


class LinearHead(Head):
    """One linear layer over all features it reads; weight N(0, 0.02) and bias 0 at first, as in UnivFD."""

    classifier: nn.Linear

    def __init__(self, reads: HeadInput, feature_shape: tuple[int, ...]) -> None:
        super().__init__(reads, feature_shape)
        self.classifier = nn.Linear(math.prod(feature_shape), 1)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N,) of features (N, len(reads.blocks), D) or (N, E)."""
        self._check(features)
        logits: Tensor = self.classifier(features.flatten(1))  # (N, 1)
        return logits.squeeze(1)


def build_linear(settings: LinearSettings, *, blocks: int, width: int) -> LinearHead:
    """Return a linear probe for a backbone of L ``blocks`` and width D.

    Raises:
        SettingError: the block is beyond the backbone's last.
    """
    if settings.tap != "cls":
        return LinearHead(HeadInput(settings.tap), (width,))
    if settings.block == "all":
        read = tuple(range(blocks))
    else:
        read = (settings.block if isinstance(settings.block, int) else blocks - 1,)
    if read[-1] >= blocks:
        raise SettingError(
            f"head 'linear': block {read[-1]} is beyond the backbone's last, {blocks - 1}; "
            f"choose 0..{blocks - 1}, 'last' or 'all'"
        )
    return LinearHead(HeadInput(settings.tap, read), (len(read), width))
