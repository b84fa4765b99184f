"""The LTD head written plainly on torch's own encoder layer: the reference for values, gradients, dropout and time."""

import torch
from torch import nn

NAMES = {
    "encoder.self_attn.in_proj_weight": "encoder.in_weight",
    "encoder.self_attn.in_proj_bias": "encoder.in_bias",
    "encoder.self_attn.out_proj.weight": "encoder.out.weight",
    "encoder.self_attn.out_proj.bias": "encoder.out.bias",
    "encoder.linear1.weight": "encoder.expand.weight",
    "encoder.linear1.bias": "encoder.expand.bias",
    "encoder.linear2.weight": "encoder.contract.weight",
    "encoder.linear2.bias": "encoder.contract.bias",
    "encoder.norm1.weight": "encoder.norm_attention.weight",
    "encoder.norm1.bias": "encoder.norm_attention.bias",
    "encoder.norm2.weight": "encoder.norm_feed_forward.weight",
    "encoder.norm2.bias": "encoder.norm_feed_forward.bias",
    "classifier.0.weight": "norm.weight",
    "classifier.0.bias": "norm.bias",
    "classifier.1.weight": "classifier.weight",
    "classifier.1.bias": "classifier.bias",
    "pi": "selection.pi",
    "raw_class": "branches.raw.class_token",
    "raw_position": "branches.raw.position",
    "delta_class": "branches.delta.class_token",
    "delta_position": "branches.delta.position",
}
"""Parameter names here to those of the head under test."""


class PlainLtd(nn.Module):
    """Both branches, both positions, learned window; features (N, candidates, D) to logits (N,)."""

    def __init__(self, candidates, window, width, dropout):
        super().__init__()
        self.n = window
        self.pi = nn.Parameter(torch.randn(candidates - window + 1))
        self.raw_class, self.delta_class = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.raw_position = nn.Parameter(torch.randn(window, width))
        self.delta_position = nn.Parameter(torch.randn(window - 1, width))
        self.encoder = nn.TransformerEncoderLayer(
            width, 8, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=False
        )
        self.classifier = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, 1))

    def encode(self, class_token, tokens):
        first = class_token.expand(tokens.shape[0], 1, -1)
        encoded = self.encoder(torch.cat([first, tokens], dim=1))
        return encoded[:, 0]

    def forward(self, features):
        windows = torch.stack([features[:, c : c + self.n] for c in range(len(self.pi))], dim=1)  # (N, C, n, D)
        if self.training:
            y = nn.functional.gumbel_softmax(self.pi.expand(len(features), -1), tau=1.0, hard=True)
            window = (y[:, :, None, None] * windows).sum(1)
        else:
            window = windows[:, int(self.pi.argmax())]
        delta = window[:, 1:] - window[:, :-1]
        raw = self.encode(self.raw_class, window + self.raw_position)
        transition = self.encode(self.delta_class, delta + self.delta_position)
        logits = self.classifier(torch.cat([raw, transition], dim=1))
        return logits.squeeze(1)

    def renamed(self):
        """Its parameters under the names of the head under test."""
        return {NAMES[name]: parameter for name, parameter in self.named_parameters()}
