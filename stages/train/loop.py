"""The training loop: the head's loss, AdamW, the best epoch by held-out accuracy (METHOD: training).

Heads of one seed and batch size see the same batches, so they are trained together on features that are read once; each
draws its random numbers from a state of its own, so that what comes out is what it would be alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from stages.heads.head import Head
    from stages.reporter import Progress
    from stages.train.batches import FeatureBatches
    from stages.train.training import Training

_STEPS_BETWEEN_CHECKS = 50


def train_together(
    trainings: Sequence[Training],
    training: FeatureBatches,
    validation: FeatureBatches,
    *,
    until: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Training]:
    """Train heads in place and yield each at its end, with the weights of its best epoch.

    Heads of one seed, batch size and number of epochs behind them share their batches.

    Args:
        trainings: of heads on the device of the batches.
        training: the images to learn from; epoch e reads view e mod V.
        validation: the images that choose the best epoch.
        until: stop after so many epochs; from what is kept, a later call goes on.
        progress: counts epochs of all heads; None: they are not shown.

    Raises:
        SettingError: the loss of a head is not finite; all others have been trained and yielded.
    """
    faults: list[SettingError] = []
    active = list(trainings)
    if progress is not None:
        progress.advance(sum(len(each.history) for each in active))
    while active:
        for each in [each for each in active if each.next_factor(until) is None]:
            active.remove(each)
            each.leave_best()
            yield each
        if not active:
            break
        first = min(active, key=lambda each: len(each.history))
        group = [each for each in active if _shared(each) == _shared(first)]
        losses = _train_epoch(group, training)
        logits = logits_of([each.head for each in group], validation, first.settings.batch)
        for each, loss, own in zip(group, losses, logits, strict=True):
            try:
                each.end_epoch(loss, own, validation.labels)
            except SettingError as error:
                faults.append(error)
                active.remove(each)
        if progress is not None:
            progress.advance(len(group))
    if faults:
        raise faults[0]


def _shared(one: Training) -> tuple[int, int, int]:
    """What trainings have in common that see the same batches next."""
    return one.seed, one.settings.batch, len(one.history)


def _train_epoch(group: Sequence[Training], training: FeatureBatches) -> list[float]:
    """Take the steps of one epoch with each head of a group and return their losses."""
    seed, size, epoch = _shared(group[0])
    for each in group:
        each.begin_epoch()
    steps_before = epoch * -(-len(training) // size)
    totals = [torch.zeros((), dtype=torch.float64, device=training.device) for _ in group]
    order = training.order(seed, epoch)
    batches = training.batches(epoch, order, size, [each.head.reads for each in group])
    for step, (features, labels) in enumerate(batches):
        for number, each in enumerate(group):
            totals[number] += each.step(steps_before + step, features[number], labels).double() * len(labels)
        del features, labels  # before the next batch is read
        if step % _STEPS_BETWEEN_CHECKS == 0 and not torch.stack(totals).isfinite().any():
            break
    return [float(total) / len(training) for total in totals]


@torch.inference_mode()
def logits_of(heads: Sequence[Head], images: FeatureBatches, batch: int) -> Tensor:
    """Return the logits (heads, N) of all images, in their first view, with the heads in evaluation mode."""
    # one tensor for all: small ones that stay would lie amid what the batches allocate and free
    logits = torch.empty(len(heads), len(images), device=images.device)
    for head in heads:
        head.eval()
    batches = images.batches(0, torch.arange(len(images)), batch, [head.reads for head in heads])
    for part, (features, _) in zip(torch.split(logits, batch, dim=1), batches, strict=True):
        for row, head, own in zip(part, heads, features, strict=True):
            row.copy_(head(own))
    return logits
