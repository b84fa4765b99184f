"""The Latent Transition Discrepancy head (CVPR 2026, arXiv 2603.10598): how the CLS token moves from block to block.

A window of n adjacent blocks among the candidates is chosen, its CLS tokens and their differences go through one shared
encoder layer, and a linear classifier reads the class tokens of both. Window c is blocks c..c+n-1, counted from the
first block the head reads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.functional import gelu, gumbel_softmax

from stages.heads.head import Dropout, Head, HeadInput
from stages.heads.settings import LtdSettings
from storage.errors import SettingError


class GumbelSelection(nn.Module):
    """Learned logits pi (C,): straight-through Gumbel-Softmax (ICLR 2017) in training, arg-max in evaluation.

    Args:
        candidates: number of blocks read.
        window: n, at most ``candidates``; so C = candidates - n + 1 windows.
        temperature: of the relaxation; scales the gradient, never changes the draw.
        anneal: (end temperature, steps) of a linear schedule from ``temperature``, or None.
    """

    def __init__(
        self, candidates: int, window: int, temperature: float = 1.0, anneal: tuple[float, int] | None = None
    ) -> None:
        super().__init__()
        # not on the meta device, where bundles are checked: torch would import its compiler there, for a second
        bands = torch.eye(candidates, device="cpu").unfold(0, window, 1).transpose(1, 2).contiguous()
        self.register_buffer("bands", bands, persistent=False)  # (C, n, candidates)
        self.bands: Tensor
        self.pi = nn.Parameter(torch.randn(len(bands)))
        self.temperature = self._first_temperature = temperature
        self._anneal = anneal

    def draw(self, features: Tensor) -> Tensor:
        """For training: one window of each sample, (N, n, D) of features (N, candidates, D)."""
        # sum_c weights[:, c] * window c, with no copy of the C overlapping windows
        return torch.einsum("nc,ckl->nkl", self.weights(len(features)), self.bands) @ features

    def weights(self, n_images: int) -> Tensor:
        """(N, C): exactly one-hot, with the gradient of the softmax; one draw per sample."""
        return gumbel_softmax(self.pi.expand(n_images, -1), self.temperature, hard=True)

    def advance(self, steps_done: int) -> None:
        """Set the temperature for the step after ``steps_done`` steps."""
        if self._anneal is not None:
            end, steps = self._anneal
            share = min(steps_done / steps, 1.0)
            self.temperature = (1 - share) * self._first_temperature + share * end


class ClassTokenEncoder(nn.Module):
    """A post-norm Transformer encoder layer of which only the class token's output is computed.

    Exact: same function, initialisation, gradients and dropout as ``nn.TransformerEncoderLayer(activation="gelu",
    batch_first=True)`` read at position 0, but for the rounding. Several sequences, each with its own class token, go
    through it with the same weights. What makes it cheap (D^2 multiplications an image with k tokens: 10 against
    12 (k + 1)):

    - query, output projection and feed-forward are needed for the class token alone;
    - the class token is the same for every image, so its query is too, and q . (W_k x) = (W_k^T q) . x needs one vector
      a head in place of the keys of all tokens (the key bias adds the same to all scores, so softmax drops it and its
      gradient is exactly 0);
    - sum_k p_k W_v x_k = W_v (sum_k p_k x_k) projects one pooled token a head in place of the values of all tokens.

    Args:
        width: D, a multiple of ``heads``.
        heads: H attention heads of width d = D / H.
        dropout: probability for attention probabilities, after the activation, after the attention output and after
            the feed-forward output.

    Raises:
        SettingError: the attention heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise SettingError(
                f"{heads} attention heads do not divide the backbone's width {width}; set `heads` to a divisor"
            )
        self.width, self.heads = width, heads
        self.in_weight = nn.Parameter(torch.empty(3 * width, width))  # query, key, value
        self.in_bias = nn.Parameter(torch.zeros(3 * width))
        self.out = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.in_weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, sequences: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Class-token outputs (B, N, D) of B sequences.

        Args:
            sequences: B pairs of a class token (D,) and the tokens after it (N, k, D); k may differ, N may not.
        """
        n_images = sequences[0][1].shape[0]
        context = torch.cat([self._attend(class_token, tokens) for class_token, tokens in sequences])  # (B N, D)
        residual = torch.stack([class_token for class_token, _ in sequences]).repeat_interleave(n_images, 0)  # (B N, D)
        x: Tensor = self.norm_attention(residual + self.dropout(self.out(context)))
        hidden = self.dropout(gelu(self.expand(x)))  # (B N, 4 D)
        x = self.norm_feed_forward(x + self.dropout(self.contract(hidden)))
        return x.view(len(sequences), n_images, self.width)

    def _attend(self, class_token: Tensor, tokens: Tensor) -> Tensor:
        """Attention of the class token (D,) over itself and tokens (N, k, D): (N, D), before the output projection."""
        n_images, (heads, width) = tokens.shape[0], (self.heads, self.width)
        # unbind, not slices: its backward is one copy in place of three zero-filled (3 D, D) matrices
        w_query, w_key, w_value = self.in_weight.view(3, width, width).unbind()
        b_query, _, b_value = self.in_bias.view(3, heads, -1).unbind()
        w_key, w_value = w_key.view(heads, -1, width), w_value.view(heads, -1, width)  # (H, d, D)

        query = (w_query @ class_token).view(heads, -1) + b_query  # (H, d)
        probe = (query.unsqueeze(1) @ w_key).squeeze(1) * query.shape[1] ** -0.5  # (H, D)
        own_score = (probe @ class_token).expand(n_images, 1, heads)
        scores = torch.cat([own_score, tokens @ probe.T], dim=1)  # (N, 1 + k, H)
        attention = self.dropout(scores.softmax(dim=1))

        pooled = attention[:, 1:].transpose(1, 2) @ tokens  # (N, H, D)
        value = (pooled.transpose(0, 1) @ w_value.transpose(1, 2)).transpose(0, 1)  # (N, H, d)
        own_value = w_value @ class_token  # (H, d)
        # dropped probabilities no longer sum to one, so the value bias has to be weighted
        context: Tensor = (
            value + attention[:, 0, :, None] * own_value + attention.sum(1).unsqueeze(2) * b_value
        )  # (N, H, d)
        return context.flatten(1)


class _BranchTokens(nn.Module):
    """What a branch owns: its class token (D,) and the position embedding (k, D) of its k tokens, both N(0, 1)."""

    def __init__(self, tokens: int, width: int, *, position: bool) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(width))
        self.position = nn.Parameter(torch.randn(tokens, width)) if position else None

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The class token, which gets no position, and the tokens (N, k, D) with theirs."""
        return self.class_token, tokens if self.position is None else tokens + self.position


class LtdHead(Head):
    """Window of n CLS tokens and their n - 1 differences -> shared encoder layer -> linear classifier.

    As an ablation each branch has an encoder layer of its own. Of two windows, each has branches of its own, and the
    classifier reads all of them.

    Raises:
        SettingError: candidates or window do not fit the depth, or the attention heads the width.
    """

    classifier: nn.Linear

    def __init__(self, settings: LtdSettings, *, blocks: int, width: int) -> None:
        starts, n = settings.starts_for(blocks), settings.window
        read = range(starts[0], starts[-1] + n)
        super().__init__(HeadInput("cls", tuple(read)), (len(read), width))
        self.window = n
        self.selection: GumbelSelection | None = None
        self._fixed = [start - read[0] for start in settings.fixed_starts]
        if not self._fixed:
            self.selection = GumbelSelection(len(read), n, settings.temperature, settings.anneal)
        self.selection_lr = settings.selection_lr
        lengths = {"raw": n, "delta": n - 1}
        self.branches = nn.ModuleDict(
            {
                f"{name}{which}": _BranchTokens(lengths[name], width, position=settings.position)
                for which in ("", "2")[: len(self._fixed) or 1]
                for name in settings.branches
            }
        )
        self.encoder = ClassTokenEncoder(width, settings.heads, settings.dropout)
        others = 0 if settings.shared else len(self.branches) - 1
        self.other_encoders = nn.ModuleList(
            ClassTokenEncoder(width, settings.heads, settings.dropout) for _ in range(others)
        )
        self.norm = nn.LayerNorm(len(self.branches) * width)
        self.classifier = nn.Linear(len(self.branches) * width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N,) of CLS tokens (N, len(reads.blocks), D)."""
        logits: Tensor = self.classifier(self.norm(self.joined(features)))
        return logits.squeeze(1)

    def joined(self, features: Tensor) -> Tensor:
        """The branches' outputs side by side, (N, B D), of CLS tokens (N, len(reads.blocks), D)."""
        self._check(features)
        if self.training and self.selection is not None:
            windows = [self.selection.draw(features)]
        else:
            windows = [features[:, start : start + self.window] for start in self.starts()]
        sequences = []
        for name, branch in self.branches.items():
            window = windows[name.endswith("2")]
            tokens = window.diff(dim=1) if name.startswith("delta") else window  # (N, n - 1, D) or (N, n, D)
            sequences.append(branch(tokens))
        if self.other_encoders:
            pairs = zip([self.encoder, *self.other_encoders], sequences, strict=True)
            return torch.cat([encoder([sequence])[0] for encoder, sequence in pairs], dim=1)
        joined: Tensor = self.encoder(sequences).transpose(0, 1).flatten(1)
        return joined

    def starts(self) -> list[int]:
        """First of each window that is evaluated, counted from the first block the head reads."""
        return self._fixed if self.selection is None else [int(self.selection.pi.argmax())]

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group, or two when the window logits have a learning rate of their own."""
        if self.selection_lr is None or self.selection is None:
            return super().parameter_groups(lr)
        pi = self.selection.pi
        rest = [parameter for parameter in self.parameters() if parameter is not pi]
        return [{"params": rest, "lr": lr}, {"params": [pi], "lr": self.selection_lr}]

    def advance(self, steps_done: int) -> None:
        """Anneal the temperature of the window selection."""
        if self.selection is not None:
            self.selection.advance(steps_done)

    def describe(self) -> dict[str, JsonValue]:
        """The backbone's blocks (0-based) at which the evaluated windows begin and, where one is learned, ``pi``."""
        starts = [self.reads.blocks[start] for start in self.starts()]
        facts: dict[str, JsonValue] = dict(zip(("window_start", "window_start_2"), starts, strict=False))
        return facts if self.selection is None else {**facts, "pi": self.selection.pi.detach().tolist()}
