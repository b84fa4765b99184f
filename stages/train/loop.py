"""The training loop: the head's loss, AdamW, the best epoch by held-out accuracy (METHOD: training)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW

from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.heads.head import Head
    from stages.heads.settings import TrainSettings
    from stages.reporter import Progress
    from stages.train.batches import FeatureBatches
    from stages.train.checkpoint import Checkpoint

# A later epoch replaces the best one only when its accuracy is higher by this much.
MIN_GAIN = 0.001
_MIN_LR = 1e-6
_STEPS_BETWEEN_CHECKS = 50


@dataclass(frozen=True)
class Epoch:
    """Measurements of one epoch, 0-based.

    Attributes:
        epoch: its number.
        lr: base learning rate, of all parameters to which the head gives no rate of their own.
        train_loss: mean over the epoch's batches, weighted by their size.
        validation_loss: binary cross-entropy, mean per image.
        validation_accuracy: share of images on the right side of logit 0.
    """

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


def fit(
    head: Head,
    training: FeatureBatches,
    validation: FeatureBatches,
    settings: TrainSettings,
    *,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    until: int | None = None,
) -> tuple[list[Epoch], Epoch]:
    """Train ``head`` in place and leave it with the weights of its best epoch.

    The order of the images is drawn from ``seed`` and the epoch alone; what the head draws (dropout, windows) comes
    from torch's global generator, which the caller has seeded.

    Args:
        head: freshly initialised, on the device of the batches.
        training: the images to learn from; epoch e reads view e mod V.
        validation: the images that choose the best epoch.
        settings: those of this head.
        seed: of the image order.
        progress: counts epochs; None: they are not shown.
        checkpoint: keeps the training after each epoch, to resume it with the same result as without a stop; the
            caller removes it.
        until: stop after so many epochs; a later call with the same checkpoint resumes there.

    Returns:
        All epochs, and the best one.

    Raises:
        SettingError: a loss is not finite; the message names the epoch.
    """
    optimizer = AdamW(head.parameter_groups(settings.lr), weight_decay=0, fused=True)
    base = [group["lr"] for group in optimizer.param_groups]
    kept, best = checkpoint.restore(head, optimizer) if checkpoint is not None else ([], {})
    history = [Epoch(**epoch) for epoch in kept]
    if progress is not None:
        progress.advance(len(history))
    while len(history) < (until or settings.epochs):
        factor = lr_factor(history, settings)
        if factor is None:
            break
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * factor
        number = len(history)
        train_loss = _train_epoch(head, optimizer, training, settings, seed=seed, epoch=number)
        loss, accuracy = validate(head, validation, settings.batch)
        if not math.isfinite(loss):
            raise SettingError(_not_finite("held-out loss", number, settings))
        history.append(Epoch(number, settings.lr * factor, train_loss, loss, accuracy))
        if best_of(history).epoch == number:
            best = {name: weight.to("cpu", copy=True) for name, weight in head.state_dict().items()}
        if progress is not None:
            progress.advance(1)
        if checkpoint is not None:
            checkpoint.save([asdict(epoch) for epoch in history], head, optimizer, best)
    head.load_state_dict(best)
    return history, best_of(history)


def best_of(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch that is kept: the last one that beat all before it by ``MIN_GAIN``."""
    best = history[0]
    for epoch in history[1:]:
        if epoch.validation_accuracy >= best.validation_accuracy + MIN_GAIN:
            best = epoch
    return best


def lr_factor(history: Sequence[Epoch], settings: TrainSettings) -> float | None:
    """Return what the learning rates are multiplied by in the next epoch; None: patience is at its end."""
    factor, best, waited = 1.0, -1.0, 0
    for epoch in history:
        if epoch.validation_accuracy >= best + MIN_GAIN:
            best, waited = epoch.validation_accuracy, 0
            continue
        waited += 1
        if waited == settings.patience:
            factor, waited = factor / 10, 0
    # a hair below, so that 1e-4 divided by 10 twice still counts as 1e-6
    return factor if factor == 1 or settings.lr * factor >= _MIN_LR * 0.999 else None


def image_order(images: int, *, seed: int, epoch: int) -> torch.Tensor:
    """Return the order in which an epoch reads the images: a permutation of 0..N-1."""
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))


def _train_epoch(
    head: Head, optimizer: AdamW, training: FeatureBatches, settings: TrainSettings, *, seed: int, epoch: int
) -> float:
    """Take the steps of one epoch and return its loss."""
    head.train()
    steps_before = epoch * -(-len(training) // settings.batch)
    total = torch.zeros((), dtype=torch.float64, device=training.device)
    order = image_order(len(training), seed=seed, epoch=epoch)
    for step, (features, labels) in enumerate(training.batches(epoch, order, settings.batch, head.reads)):
        head.advance(steps_before + step)
        loss = head.loss(features, labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.detach().double() * len(labels)
        del features, labels, loss  # before the next batch is read
        if step % _STEPS_BETWEEN_CHECKS == 0 and not total.isfinite():
            break
    if not total.isfinite():
        raise SettingError(_not_finite("loss", epoch, settings))
    return float(total) / len(training)


def _not_finite(what: str, epoch: int, settings: TrainSettings) -> str:
    return f"the {what} is not finite in epoch {epoch} at train.lr {settings.lr}; lower it"


def validate(head: Head, images: FeatureBatches, batch: int) -> tuple[float, float]:
    """Return mean loss and accuracy (logit > 0 says synthetic) of ``head`` in evaluation mode, on the first view."""
    logits = logits_of(head, images, batch)
    loss = binary_cross_entropy_with_logits(logits.double(), images.labels.double())
    return float(loss), float(((logits > 0) == (images.labels > 0.5)).double().mean())


@torch.inference_mode()
def logits_of(head: Head, images: FeatureBatches, batch: int) -> torch.Tensor:
    """Return the logits (N,) of all images, in their first view, with ``head`` in evaluation mode."""
    head.eval()
    # one tensor for all: small ones that stay would lie amid what the batches allocate and free
    logits = torch.empty(len(images), device=images.device)
    batches = images.batches(0, torch.arange(len(images)), batch, head.reads)
    for part, (features, _) in zip(torch.split(logits, batch), batches, strict=True):
        part.copy_(head(features))
    return logits
