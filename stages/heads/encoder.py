"""A post-norm Transformer encoder layer of which only the class token's output is computed.

Exact: same function, gradients and dropout as ``nn.TransformerEncoderLayer(activation="gelu", batch_first=True)`` read
at position 0, but for the rounding. What makes it cheap (D^2 multiplications an image with k tokens: 10 against
12 (k + 1)):

- query, output projection and feed-forward are needed for the class token alone;
- the class token is the same for every image, so its query is too, and q . (W_k x) = (W_k^T q) . x needs one vector a
  head in place of the keys of all tokens (the key bias adds the same to all scores, so softmax drops it and its
  gradient is exactly 0);
- sum_k p_k W_v x_k = W_v (sum_k p_k x_k) projects one pooled token a head in place of the values of all tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from stages.heads.dropout import Dropout
from storage.errors import SettingError


class ClassTokenEncoder(nn.Module):
    """One encoder layer that several sequences, each with its own class token, go through with the same weights.

    Initialised as torch's layer: in-projection Xavier uniform over the stacked (3 D, D) matrix, its bias and the
    output projection's 0, the other linear layers by torch's default.

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
