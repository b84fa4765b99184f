"""Adam without weight decay, which AdamW then equals: torch's fused pass over the weights, without torch's class.

Making an object of ``torch.optim`` imports torch's compiler: a second or more, and 150 MB that nothing here uses.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_LARGE = 2**20  # elements


class Adam:
    """The same updates as ``torch.optim.AdamW(groups, weight_decay=0, fused=True)``, to the last bit.

    Args:
        groups: each with ``params`` and ``lr``, as ``Head.parameter_groups`` gives them. ``lr`` may change between
            steps.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        self.groups = groups
        # made before the first batch, so that they do not lie between what each step allocates and frees
        self._moments = {
            parameter: (
                torch.zeros_like(parameter),
                torch.zeros_like(parameter),
                torch.zeros((), device=parameter.device),
            )
            for group in groups
            for parameter in group["params"]
        }  # mean and mean square of the gradient, and the number of steps

    def minimise(self, loss: Tensor) -> None:
        """Take one step down ``loss``. Gradients are freed, those of large parameters as soon as they are used."""
        hooks = [
            parameter.register_post_accumulate_grad_hook(lambda parameter, lr=group["lr"]: self._step([parameter], lr))
            for group in self.groups
            for parameter in group["params"]
            if parameter.numel() >= _LARGE
        ]
        try:
            torch.autograd.backward(loss)
        finally:
            for hook in hooks:
                hook.remove()
        for group in self.groups:
            self._step(group["params"], group["lr"])

    @torch.no_grad()
    def _step(self, parameters: Sequence[Tensor], lr: float) -> None:
        learned = [parameter for parameter in parameters if parameter.grad is not None]
        means, squares, steps = ([self._moments[parameter][part] for parameter in learned] for part in range(3))
        adam(
            learned,
            [parameter.grad for parameter in learned if parameter.grad is not None],
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=_BETA1,
            beta2=_BETA2,
            lr=lr,
            weight_decay=0,
            eps=_EPS,
            maximize=False,
        )
        for parameter in learned:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return all that later steps depend on beside weights and learning rates; writing into it restores it."""
        return {
            f"{number}.{name}": tensor
            for number, moments in enumerate(self._moments.values())
            for name, tensor in zip(("mean", "square", "steps"), moments, strict=True)
        }
