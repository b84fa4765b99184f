"""How a head picks n adjacent blocks among its candidates: learned or fixed.

Window c is blocks c..c+n-1, counted from the first block the head reads.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax


class FixedWindow(nn.Module):
    """The one window that is read, and no choice; base of the selection that learns.

    Args:
        candidates: number of blocks read.
        window: n, at most ``candidates``; so C = candidates - n + 1 windows.
    """

    def __init__(self, candidates: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.windows = candidates - window + 1

    def draw(self, features: Tensor) -> Tensor:
        """For training: one window of each sample, (N, n, D) of features (N, candidates, D)."""
        return features

    def start(self) -> int:
        """For evaluation: c of the window that is read."""
        return 0

    def advance(self, steps_done: int) -> None:
        """Called before each step with the number of completed steps."""


class GumbelSelection(FixedWindow):
    """Learned logits pi (C,): straight-through Gumbel-Softmax (ICLR 2017) in training, arg-max in evaluation.

    Args:
        candidates: number of blocks read.
        window: n.
        temperature: of the relaxation; scales the gradient, never changes the draw.
        anneal: (end temperature, steps) of a linear schedule from ``temperature``, or None.
    """

    def __init__(
        self, candidates: int, window: int, temperature: float = 1.0, anneal: tuple[float, int] | None = None
    ) -> None:
        super().__init__(candidates, window)
        # not on the meta device, where bundles are checked: torch would import its compiler there, for a second
        eye = torch.eye(candidates, device="cpu")
        bands = torch.stack([eye[start : start + window] for start in range(self.windows)])
        self.register_buffer("bands", bands, persistent=False)  # (C, n, candidates)
        self.bands: Tensor
        self.pi = nn.Parameter(torch.randn(self.windows))
        self.temperature = self._first_temperature = temperature
        self._anneal = anneal

    def draw(self, features: Tensor) -> Tensor:  # noqa: D102 - as the base
        # sum_c weights[:, c] * window c, with no copy of the C overlapping windows
        return torch.einsum("nc,ckl->nkl", self.weights(len(features)), self.bands) @ features

    def weights(self, n_images: int) -> Tensor:
        """(N, C): exactly one-hot, with the gradient of the softmax; one draw per sample."""
        return gumbel_softmax(self.pi.expand(n_images, -1), self.temperature, hard=True)

    def start(self) -> int:  # noqa: D102 - as the base
        return int(self.pi.argmax())

    def advance(self, steps_done: int) -> None:
        """Set the temperature for the step after ``steps_done`` steps."""
        if self._anneal is not None:
            end, steps = self._anneal
            share = min(steps_done / steps, 1.0)
            self.temperature = (1 - share) * self._first_temperature + share * end
