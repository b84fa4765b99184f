"""The training loop: the head's loss, Adam, the best epoch by held-out accuracy (METHOD: training)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from stages.train.optimizer import Adam
from storage.atomic import explained
from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    from stages.reporter import Progress
    from stages.train.checkpoint import Checkpoint
    from stages.train.feed import Feed
    from stages.train.heads.head import Head, Reads
    from stages.train.settings import TrainSettings

# A later epoch replaces the best one only when its accuracy is higher by this much.
MIN_GAIN = 0.001
_MIN_LR = 1e-6
_STEPS_BETWEEN_CHECKS = 50


@dataclass(frozen=True)
class Epoch:
    """Measurements of one epoch, 0-based.

    Attributes:
        epoch: its number.
        lr: learning rate of all but what the head gives one of its own.
        train_loss: what was minimised, mean over the epoch's batches weighted by their size.
        validation_loss: binary cross-entropy, mean per image.
        validation_accuracy: share of images on the right side of logit 0.
    """

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


class BestWeights:
    """The weights of a head's best epoch, in a temporary ``file``: the memory they would take is the features'."""

    def __init__(self, file: IO[bytes], head: Head) -> None:
        self._file, self._like = file, dict(sorted(head.state_dict().items()))

    def keep(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace what was kept by these weights of the head.

        Raises:
            ResourceError: there is no room for temporary files.
        """
        with explained(Path(gettempdir())):
            self._file.seek(0)
            for name in self._like:
                self._file.write(weights[name].contiguous().cpu().numpy().data)
            self._file.flush()

    def kept(self) -> dict[str, torch.Tensor]:
        """Return what was kept last, on the CPU."""
        weights = {name: torch.empty(like.shape, dtype=like.dtype) for name, like in self._like.items()}
        self._file.seek(0)
        for tensor in weights.values():
            self._file.readinto(tensor.numpy())  # type: ignore[attr-defined]
        return weights


@dataclass
class Run:
    """A training run between two epochs: all that the next epoch depends on, beside torch's random state."""

    head: Head
    optimizer: Adam
    history: list[Epoch]
    best: BestWeights


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
        checkpoint: where unfinished training is kept, and gone on with; the result is the same as without a stop.

    Returns:
        All epochs, and the best one.

    Raises:
        SettingError: the loss is not finite; the message names the epoch.
    """
    with explained(Path(gettempdir())), TemporaryFile() as file:  # closing it writes again what a full disk refused
        run = Run(head, Adam(head.parameter_groups(settings.lr)), [], BestWeights(file, head))
        base = [group["lr"] for group in run.optimizer.groups]
        if checkpoint is not None and checkpoint.restore(run):
            progress.advance(len(run.history))
        while len(run.history) < settings.epochs:
            factor = lr_factor(run.history, settings)
            if factor is None:
                break
            for group, lr in zip(run.optimizer.groups, base, strict=True):
                group["lr"] = lr * factor
            number = len(run.history)
            train_loss = _train_epoch(run, training, settings, seed=seed)
            measured = validate(head, validation, settings.batch)
            run.history.append(Epoch(number, settings.lr * factor, train_loss, *measured))
            if best_of(run.history).epoch == number:
                run.best.keep(head.state_dict())
            progress.advance(1)
            if checkpoint is not None and len(run.history) < settings.epochs:
                checkpoint.save(run)
        head.load_state_dict(run.best.kept())
    if checkpoint is not None:
        checkpoint.remove()
    return run.history, best_of(run.history)


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


def _train_epoch(run: Run, feed: Feed, settings: TrainSettings, *, seed: int) -> float:
    epoch = len(run.history)
    run.head.train()
    steps_before = epoch * -(-len(feed) // settings.batch)
    total = torch.zeros((), dtype=torch.float64, device=feed.device)
    order = image_order(len(feed), seed=seed, epoch=epoch)
    for step, (features, labels) in enumerate(feed.batches(epoch, order, settings.batch, run.head.reads)):
        run.head.advance(steps_before + step)
        loss = run.head.loss(features, labels)
        run.optimizer.minimise(loss)
        total += loss.detach().double() * len(labels)
        del features, labels, loss  # before the next batch is read
        if step % _STEPS_BETWEEN_CHECKS == 0:
            _check_finite(total, epoch, settings)
    _check_finite(total, epoch, settings)
    return float(total) / len(feed)


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
