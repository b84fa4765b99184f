"""The training loop: binary cross-entropy, AdamW, the best epoch by held-out accuracy (METHOD: training)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from storage.errors import SettingError

if TYPE_CHECKING:
    from stages.reporter import Progress
    from stages.train.data import Examples
    from stages.train.heads.head import Head
    from stages.train.settings import TrainSettings

# A later epoch replaces the best one only when its accuracy is higher by this much.
MIN_GAIN = 0.001


@dataclass(frozen=True)
class Epoch:
    """Measurements after one epoch, 0-based; losses are means per image."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


def fit(
    head: Head, training: Examples, validation: Examples, settings: TrainSettings, *, seed: int, progress: Progress
) -> tuple[list[Epoch], Epoch]:
    """Train ``head`` in place and leave it with the weights of its best epoch.

    The order of the images is drawn from ``seed`` and the epoch alone; what the head draws (dropout, windows) comes
    from torch's global generator, which the caller has seeded.

    Returns:
        All epochs, and the best one.

    Raises:
        SettingError: the loss is not finite; the message names the epoch.
    """
    # foreach off: one plain update a parameter, the same bytes whatever torch would group
    optimizer = torch.optim.AdamW(head.parameter_groups(settings.lr), betas=(0.9, 0.999), weight_decay=0, foreach=False)
    history: list[Epoch] = []
    best, best_weights = None, None
    steps = 0
    for number in range(settings.epochs):
        head.train()
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed * 100_003 + number))
        total = torch.zeros((), dtype=torch.float64)
        for features, labels in training.batches(order.to(training.labels.device), settings.batch):
            head.advance(steps)
            loss = binary_cross_entropy_with_logits(head(features), labels)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            steps += 1
            total += loss.detach().double().cpu() * len(labels)
        train_loss = float(total) / len(training)
        if not torch.isfinite(total):
            raise SettingError(f"the loss is not finite in epoch {number} at train.lr {settings.lr}; lower it")
        loss_value, accuracy = validate(head, validation, settings.batch)
        history.append(Epoch(number, train_loss, loss_value, accuracy))
        if best is None or accuracy >= best.validation_accuracy + MIN_GAIN:
            best, best_weights = history[-1], copy.deepcopy(head.state_dict())
        progress.advance(1)
    assert best is not None and best_weights is not None  # noqa: S101, PT018 - epochs >= 1
    head.load_state_dict(best_weights)
    return history, best


@torch.inference_mode()
def validate(head: Head, examples: Examples, batch: int) -> tuple[float, float]:
    """Return mean loss and accuracy (logit > 0 says synthetic) of ``head`` in evaluation mode."""
    head.eval()
    rows = torch.arange(len(examples), device=examples.labels.device)
    logits = torch.cat([head(features) for features, _ in examples.batches(rows, batch)])
    loss = binary_cross_entropy_with_logits(logits.double(), examples.labels.double())
    return float(loss), float(((logits > 0) == (examples.labels > 0.5)).double().mean())
