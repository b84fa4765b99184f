"""How a head picks n adjacent blocks among its candidates: learned, uniform, or fixed.

Window c is blocks c..c+n-1, counted from the first block the head reads.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


class WindowSelection(nn.Module):
    """One fixed window, as many blocks as are read; base of the two that choose.

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

    def starts(self) -> list[int]:
        """For evaluation: the windows whose mean logit is the head's."""
        return [0]

    def advance(self, steps_done: int) -> None:
        """Told the number of optimizer steps done, before each step."""


class _Drawn(WindowSelection):
    def __init__(self, candidates: int, window: int) -> None:
        super().__init__(candidates, window)
        # not on the meta device, where bundles are checked: torch would import its compiler there, for a second
        eye = torch.eye(candidates, device="cpu")
        bands = torch.stack([eye[start : start + window] for start in range(self.windows)])
        self.register_buffer("bands", bands, persistent=False)  # (C, n, candidates)
        self.bands: Tensor

    def _mix(self, weights: Tensor, features: Tensor) -> Tensor:
        """sum_c weights[:, c] * window c, (N, n, D) of weights (N, C), with no copy of the C overlapping windows."""
        return torch.einsum("nc,ckl->nkl", weights, self.bands) @ features


class UniformSelection(_Drawn):
    """Every window with the same probability in training; all windows in evaluation."""

    def draw(self, features: Tensor) -> Tensor:  # noqa: D102 - as the base
        chosen = torch.randint(self.windows, features.shape[:1], device=features.device)
        return self._mix(one_hot(chosen, self.windows).to(features.dtype), features)

    def starts(self) -> list[int]:  # noqa: D102 - as the base
        return list(range(self.windows))


class GumbelSelection(_Drawn):
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
        self.pi = nn.Parameter(torch.randn(self.windows))
        self.temperature = self._first_temperature = temperature
        self._anneal = anneal

    def draw(self, features: Tensor) -> Tensor:  # noqa: D102 - as the base
        return self._mix(self.weights(features.shape[0]), features)

    def weights(self, n_images: int) -> Tensor:
        """(N, C): exactly one-hot, with the gradient of the softmax; one draw a sample."""
        pi = self.pi.expand(n_images, -1)
        gumbel = -torch.empty_like(pi, memory_format=torch.contiguous_format).exponential_().log()
        soft = ((pi + gumbel) / self.temperature).softmax(dim=1)
        hard = one_hot(soft.argmax(dim=1), self.windows).to(soft.dtype)
        return hard + (soft - soft.detach())  # the bracket is exactly 0: no rounding of the hard window

    def starts(self) -> list[int]:  # noqa: D102 - as the base
        return [int(self.pi.argmax())]

    def advance(self, steps_done: int) -> None:
        """Set the temperature for the step after ``steps_done`` steps."""
        if self._anneal is not None:
            end, steps = self._anneal
            share = min(steps_done / steps, 1.0)
            self.temperature = (1 - share) * self._first_temperature + share * end
