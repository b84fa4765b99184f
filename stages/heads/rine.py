"""RINE (ECCV 2024): the CLS tokens of all blocks after the second layer norm, weighted by a trainable importance."""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from stages.heads.head import Dropout, Head, HeadInput
from stages.heads.settings import RineSettings


class RineHead(Head):
    """Projection of each block's token -> importance-weighted sum over blocks -> projection z -> classifier.

    The tokens are those after LayerNorm 2 of each block, before its feed-forward, as the authors' code reads them;
    the paper's text speaks of the blocks' output.
    """

    def __init__(self, settings: RineSettings, *, blocks: int, width: int) -> None:
        super().__init__(HeadInput(settings.tap, tuple(range(blocks))), (blocks, width))
        size, drop = settings.project, settings.dropout
        self.settings = settings
        self.project = nn.Sequential(Dropout(drop), *_layers(width, size, settings.depth, drop))
        self.importance = nn.Parameter(torch.randn(blocks, size))
        self.refine = nn.Sequential(Dropout(drop), *_layers(size, size, settings.depth, drop))
        self.classifier = nn.Sequential(*_layers(size, size, 2, drop), nn.Linear(size, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N,) of tokens (N, L, D)."""
        return self._classify(self._represent(features))

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy plus the weighted supervised contrastive loss of the representations z."""
        z = self._represent(features)
        entropy = binary_cross_entropy_with_logits(self._classify(z), labels, reduction=self.settings.reduction)
        contrast = supervised_contrastive(normalize(z, dim=1), labels, self.settings.contrastive_temperature)
        return entropy + self.settings.contrastive * contrast

    def _represent(self, features: Tensor) -> Tensor:
        self._check(features)
        projected = self.project(features)  # (N, L, d')
        z: Tensor = self.refine((self.importance.softmax(dim=0) * projected).sum(dim=1))  # (N, d')
        return z

    def _classify(self, z: Tensor) -> Tensor:
        logits: Tensor = self.classifier(z)
        return logits.squeeze(1)


def supervised_contrastive(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (NeurIPS 2020, the form with the sum outside the logarithm), a scalar.

    An image's loss is the mean over the other images of its label of -log softmax(z_i . z_j / tau), the softmax over
    all other images; the result is the mean over the images that have such a partner, 0 where none has.

    Args:
        z: (N, d') of unit length.
        labels: (N,).
        temperature: tau.
    """
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    partners = ((labels[:, None] == labels) & others).to(z.dtype)  # (N, N)
    similarity = (z @ z.T / temperature).masked_fill(~others, -torch.inf)
    log_share = (similarity - similarity.logsumexp(dim=1, keepdim=True)).masked_fill(~others, 0)
    count = partners.sum(dim=1)  # (N,)
    losses = -(partners * log_share).sum(dim=1) / count.clamp(min=1)
    return losses.sum() / (count > 0).sum().clamp(min=1)


def _layers(size_in: int, size: int, depth: int, dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(size if number else size_in, size), nn.ReLU(), Dropout(dropout)]
    return layers
