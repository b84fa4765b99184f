"""The training loop: the head's loss, AdamW, the best epoch by held-out accuracy (METHOD: training)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW

from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from stages.heads.head import Head, Reads
    from stages.heads.training import TrainSettings
    from stages.reporter import Progress
    from stages.train.checkpoint import Checkpoint
    from stages.train.feed import Feed

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
    training: Feed,
    validation: Feed,
    settings: TrainSettings,
    *,
    seed: int,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> tuple[list[Epoch], Epoch]:
    """Train ``head`` in place and leave it with the weights of its best epoch.

    The order of the images is drawn from ``seed`` and the epoch alone; what the head draws (dropout, windows) comes
    from torch's global generator, which the caller has seeded.

    Args:
        head: freshly initialised, on the feeds' device.
        training: the images to learn from; epoch e reads view e mod V.
        validation: the images that choose the best epoch.
        settings: those of this head.
        seed: of the image order.
        progress: counts epochs.
        checkpoint: keeps unfinished training, which then resumes; the result is the same as without a stop.

    Returns:
        All epochs, and the best one.

    Raises:
        SettingError: the loss is not finite; the message names the epoch.
    """
    optimizer = AdamW(head.parameter_groups(settings.lr), weight_decay=0, fused=True)
    base = [group["lr"] for group in optimizer.param_groups]
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    kept = checkpoint.load() if checkpoint is not None else None
    if kept is not None:
        history = [Epoch(**epoch) for epoch in kept[0]]
        best = _restore(kept[1], head, optimizer)
        progress.advance(len(history))
    while len(history) < settings.epochs:
        factor = lr_factor(history, settings)
        if factor is None:
            break
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * factor
        number = len(history)
        train_loss = _train_epoch(head, optimizer, training, settings, seed=seed, epoch=number)
        measured = validate(head, validation, settings.batch)
        history.append(Epoch(number, settings.lr * factor, train_loss, *measured))
        if best_of(history).epoch == number:
            best = {name: weight.to("cpu", copy=True) for name, weight in head.state_dict().items()}
        progress.advance(1)
        if checkpoint is not None and len(history) < settings.epochs:
            checkpoint.save([asdict(epoch) for epoch in history], _state(head, optimizer, best))
    head.load_state_dict(best)
    if checkpoint is not None:
        checkpoint.remove()
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
    head: Head, optimizer: AdamW, training: Feed, settings: TrainSettings, *, seed: int, epoch: int
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
        if step % _STEPS_BETWEEN_CHECKS == 0:
            _check_finite(total, epoch, settings)
    _check_finite(total, epoch, settings)
    return float(total) / len(training)


def _check_finite(total: torch.Tensor, epoch: int, settings: TrainSettings) -> None:
    if not bool(total.isfinite()):
        raise SettingError(f"the loss is not finite in epoch {epoch} at train.lr {settings.lr}; lower it")


def validate(head: Head, feed: Feed, batch: int) -> tuple[float, float]:
    """Return mean loss and accuracy (logit > 0 says synthetic) of ``head`` in evaluation mode, on the first view."""
    logits = logits_of(head, feed, batch)
    loss = binary_cross_entropy_with_logits(logits.double(), feed.labels.double())
    return float(loss), float(((logits > 0) == (feed.labels > 0.5)).double().mean())


@torch.inference_mode()
def logits_of(head: Head, feed: Feed, batch: int, reads: Reads | None = None) -> torch.Tensor:
    """Return the logits (N,) of all images of a feed's first view, with ``head`` in evaluation mode."""
    head.eval()
    order = torch.arange(len(feed))
    # one tensor for all: small ones that stay would lie amid what the batches allocate and free
    logits = torch.empty(len(feed), device=feed.device)
    batches = feed.batches(0, order, batch, reads or head.reads)
    for part, (features, _) in zip(torch.split(logits, batch), batches, strict=True):
        part.copy_(head(features))
    return logits


def _state(head: Head, optimizer: AdamW, best: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything the next epoch depends on beside the history, as named tensors."""
    moments = optimizer.state_dict()["state"].items()
    state = {f"head.{name}": weight for name, weight in head.state_dict().items()}
    state |= {f"best.{name}": weight for name, weight in best.items()}
    state |= {f"optimizer.{number}.{name}": tensor for number, part in moments for name, tensor in part.items()}
    state["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        state["random.cuda"] = torch.cuda.get_rng_state()
    return state


def _restore(state: Mapping[str, Tensor], head: Head, optimizer: AdamW) -> dict[str, Tensor]:
    """Put head, optimizer and random state back to what :func:`_state` gave, and return the best weights."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    moments: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, tensor in parts["optimizer"].items():
        number, _, kind = name.partition(".")
        moments[int(number)][kind] = tensor
    head.load_state_dict(parts["head"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    torch.set_rng_state(parts["random"]["cpu"])
    if "cuda" in parts["random"]:
        torch.cuda.set_rng_state(parts["random"]["cuda"])
    return parts["best"]
