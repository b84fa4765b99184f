"""The Latent Transition Discrepancy head (CVPR 2026, arXiv 2603.10598): how the CLS token moves from block to block."""

from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from stages.heads.encoder import ClassTokenEncoder
from stages.heads.head import Head, Reads
from stages.heads.selection import FixedWindow, GumbelSelection
from stages.heads.settings import LayerTransformerSettings, LtdSettings
from storage.errors import SettingError


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

    Args:
        settings: the window, how it is chosen, and the branches.
        blocks: L.
        width: D.

    Raises:
        SettingError: candidates or window do not fit the depth, or the attention heads the width.
    """

    def __init__(self, settings: LtdSettings, *, blocks: int, width: int) -> None:
        first, selection = _window_selection(settings, blocks)
        n, read = selection.window, selection.windows + selection.window - 1
        super().__init__(Reads(LtdSettings.tap, tuple(range(first, first + read))), (read, width))
        self.selection = selection
        self.selection_lr = settings.selection_lr
        lengths = {"raw": n, "delta": n - 1}
        self.branches = nn.ModuleDict(
            {name: _BranchTokens(lengths[name], width, position=settings.position) for name in settings.branches}
        )
        self.encoder = ClassTokenEncoder(width, settings.heads, settings.dropout)
        self.norm = nn.LayerNorm(len(self.branches) * width)
        self.classifier = nn.Linear(len(self.branches) * width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N,) of CLS tokens (N, len(reads.blocks), D)."""
        self._check(features)
        if self.training:
            return self._score(self.selection.draw(features))
        start = self.selection.start()
        return self._score(features[:, start : start + self.selection.window])

    def _score(self, window: Tensor) -> Tensor:
        """Logits (N,) of the chosen CLS tokens (N, n, D)."""
        tokens = {"raw": lambda: window, "delta": lambda: window.diff(dim=1)}  # (N, n, D), (N, n - 1, D)
        encoded = self.encoder([branch(tokens[name]()) for name, branch in self.branches.items()])  # (B, N, D)
        joined = encoded.transpose(0, 1).flatten(1)  # (N, B D)
        logits: Tensor = self.classifier(self.norm(joined))
        return logits.squeeze(1)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group, or two when the window logits have a learning rate of their own."""
        if self.selection_lr is None or not isinstance(self.selection, GumbelSelection):
            return super().parameter_groups(lr)
        pi = self.selection.pi
        rest = [parameter for parameter in self.parameters() if parameter is not pi]
        return [{"params": rest, "lr": lr}, {"params": [pi], "lr": self.selection_lr}]

    def advance(self, steps_done: int) -> None:
        """Anneal the temperature of the window selection."""
        self.selection.advance(steps_done)

    def describe(self) -> dict[str, JsonValue]:
        """The backbone's block (0-based) at which the evaluated window begins and, where it is learned, ``pi``."""
        described: dict[str, JsonValue] = {"window_start": self.reads.blocks[self.selection.start()]}
        if isinstance(self.selection, GumbelSelection):
            described["pi"] = self.selection.pi.detach().tolist()
        return described


class LayerTransformerHead(LtdHead):
    """Attention over the CLS tokens of all L ``blocks``: the LTD head's raw branch with all of them as its window.

    A variant of this project: the aggregation of ForgeLens in kind, but one layer, and on the features of an unadapted
    backbone. ForgeLens trains adapters inside the backbone, so its own numbers cannot be had from cached features.
    """

    def __init__(self, settings: LayerTransformerSettings, *, blocks: int, width: int) -> None:
        window = LtdSettings(
            window=blocks,
            selection="fixed:0",
            branches=("raw",),
            position=settings.position,
            heads=settings.heads,
            dropout=settings.dropout,
        )
        super().__init__(window, blocks=blocks, width=width)

    def describe(self) -> dict[str, JsonValue]:
        """Nothing: the window is all blocks."""
        return {}


def _window_selection(settings: LtdSettings, blocks: int) -> tuple[int, FixedWindow]:
    """The first block that is read, and what picks windows from there onwards."""
    n, start = settings.window, settings.fixed_start
    whole = start is not None and settings.candidates is None
    first, last = (0, blocks - 1) if whole else settings.candidates_for(blocks)
    within = f"backbone's blocks {first}..{last}" if whole else f"candidates {first}..{last}"
    if last >= blocks:
        raise SettingError(
            f"head 'ltd': candidates {first}..{last} go beyond the backbone's last block, {blocks - 1}; "
            f"choose candidates within 0..{blocks - 1}"
        )
    if last - first + 1 < n:
        raise SettingError(
            f"head 'ltd': window {n} is longer than the {last - first + 1} blocks of {within}; "
            f"choose a shorter window or more candidates"
        )
    if start is not None:
        if not first <= start <= last - n + 1:
            raise SettingError(
                f"head 'ltd': selection 'fixed:{start}' with window {n} needs blocks {start}..{start + n - 1}, "
                f"outside the {within}; choose a start in {first}..{last - n + 1}"
            )
        return start, FixedWindow(n, n)
    return first, GumbelSelection(last - first + 1, n, settings.temperature, settings.anneal)
