"""Several seeds of one head trained as one batched computation.

Same losses and updates as one after another, but other draws: the seeds share one stream of random numbers, so a head
trained together with others is not byte for byte the head trained alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from stages.train.loop import Epoch, best_of, image_order, validate
from stages.train.optimizer import Adam
from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stages.train.feed import Feed
    from stages.train.heads.head import Head
    from stages.train.settings import TrainSettings

_WARM_UP, _MEASURED = 2, 5


class _Loss(nn.Module):
    """A head whose forward is its loss: what ``functional_call`` can call."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.head.loss(features, labels)


class Stack:
    """k heads of the same settings, their weights stacked along a new first axis.

    Args:
        heads: freshly initialised; left alone until ``unstack``.
        settings: of their training, without patience: all seeds take the same learning rate.
    """

    def __init__(self, heads: Sequence[Head], settings: TrainSettings) -> None:
        self._heads = heads
        self._template = _Loss(heads[0])
        self._weights, self._buffers = stack_module_state([_Loss(head) for head in heads])
        names = {id(parameter): name for name, parameter in self._template.named_parameters()}
        groups = heads[0].parameter_groups(settings.lr)
        self._optimizer = Adam(
            [
                {**group, "params": [self._weights[names[id(parameter)]] for parameter in group["params"]]}
                for group in groups
            ]
        )

    def step(self, features: Tensor, labels: Tensor, steps_done: int) -> Tensor:
        """One optimizer step of all heads on (k, N, ...) features and (k, N) labels; returns their losses (k,)."""
        self._template.train()
        self._template.head.advance(steps_done)

        def loss(state: dict[str, Tensor], *batch: Tensor) -> Tensor:
            found: Tensor = functional_call(self._template, state, batch)
            return found

        losses: Tensor = vmap(loss, randomness="different")({**self._weights, **self._buffers}, features, labels)
        self._optimizer.minimise(losses.sum())  # heads share no weight: each gets the gradient of its own loss
        return losses.detach()

    def unstack(self) -> None:
        """Write the weights back into the heads."""
        with torch.no_grad():
            for number, head in enumerate(self._heads):
                for name, parameter in _Loss(head).named_parameters():
                    parameter.copy_(self._weights[name][number])


def fit_together(
    heads: Sequence[Head],
    training: Feed,
    validation: Feed,
    settings: TrainSettings,
    *,
    seeds: Sequence[int],
) -> list[Epoch]:
    """Train k heads in place, each on the images in its seed's order; leave each with the weights of its best epoch.

    Returns:
        The best epoch of each head.

    Raises:
        SettingError: a loss is not finite; the message names the epoch.
    """
    stack = Stack(heads, settings)
    histories: list[list[Epoch]] = [[] for _ in heads]
    best: list[dict[str, Tensor]] = [{} for _ in heads]
    steps = 0
    for number in range(settings.epochs):
        orders = [image_order(len(training), seed=seed, epoch=number) for seed in seeds]
        streams = [training.batches(number, order, settings.batch, heads[0].reads) for order in orders]
        total = torch.zeros(len(heads), dtype=torch.float64, device=training.device)
        for batches in zip(*streams, strict=True):
            features, labels = (torch.stack(part) for part in zip(*batches, strict=True))
            total += stack.step(features, labels, steps).double() * labels.shape[1]
            steps += 1
        if not bool(total.isfinite().all()):
            raise SettingError(f"a loss is not finite in epoch {number} at train.lr {settings.lr}; lower it")
        stack.unstack()
        for at, head in enumerate(heads):
            measured = validate(head, validation, settings.batch)
            histories[at].append(Epoch(number, settings.lr, float(total[at]) / len(training), *measured))
            if best_of(histories[at]).epoch == number:
                best[at] = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    for head, weights in zip(heads, best, strict=True):
        head.load_state_dict(weights)
    return [best_of(history) for history in histories]


def seconds_a_step(heads: Sequence[Head], training: Feed, settings: TrainSettings) -> tuple[float, float]:
    """Return how long a step of all heads takes one after another, and as one computation.

    Args:
        heads: k heads of the same settings; their weights are left as they were.
        training: the first batch is what is measured.
        settings: of their training.
    """
    kept = [{name: tensor.clone() for name, tensor in head.state_dict().items()} for head in heads]
    order = torch.arange(min(settings.batch, len(training)))
    features, labels = next(training.batches(0, order, settings.batch, heads[0].reads))
    stacked = (torch.stack([features] * len(heads)), torch.stack([labels] * len(heads)))
    optimizer, stack = Adam(heads[0].parameter_groups(settings.lr)), Stack(heads, settings)

    def alone() -> None:
        optimizer.minimise(heads[0].train().loss(features, labels))

    with torch.random.fork_rng():
        apart = _seconds(alone, features.device) * len(heads)
        together = _seconds(lambda: stack.step(*stacked, 0), features.device)
    for head, weights in zip(heads, kept, strict=True):
        head.load_state_dict(weights)
    return apart, together


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    began = 0.0
    for number in range(_WARM_UP + _MEASURED):
        if number == _WARM_UP:
            _wait(device)
            began = time.perf_counter()
        step()
    _wait(device)
    return (time.perf_counter() - began) / _MEASURED


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
