"""Which window of blocks an LTD head reads, chosen by held-out loss: every candidate trains a head of its own.

With up to five windows all are trained to the end; with more, the worse half is dropped round by round (successive
halving). A head that reads all windows at once would have to learn each of them; on planted features it found none
(docs/heads.md), while one head a window is affordable because the features are cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from stages.heads.file import build_head
from stages.heads.head import HeadInput
from stages.train.loop import Epoch, best_of, fit, logits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stages.heads.settings import LtdSettings, TrainSettings
    from stages.reporter import Progress
    from stages.train.checkpoint import Checkpoint
    from stages.train.data import TrainingData

ALL_TO_THE_END = 5


def rounds_of(windows: int, epochs: int) -> list[tuple[int, int]]:
    """Return (windows in the round, epochs at its end); the best of the last round is chosen.

    The last round has two windows, and each round twice as many as the next one. The round before the last ends
    after half of the epochs, the one before it after a quarter, and so on; rounds that would end together are one.

    Args:
        windows: candidates at first, C.
        epochs: of one whole training.
    """
    if windows <= ALL_TO_THE_END:
        return [(windows, epochs)]
    sizes = [windows]
    while sizes[-1] > 2:
        sizes.append(-(-sizes[-1] // 2))
    ends = [-(-epochs // 2 ** (len(sizes) - 1 - number)) for number in range(len(sizes))]
    first_of = {end: size for size, end in reversed(list(zip(sizes, ends, strict=True)))}
    return [(size, end) for end, size in sorted(first_of.items())]


def epochs_of(windows: int, epochs: int) -> int:
    """Return how many epochs of one window the whole choice trains."""
    plan = rounds_of(windows, epochs)
    begins = [0, *(until for _, until in plan)]
    return sum(size * (until - begin) for (size, until), begin in zip(plan, begins, strict=False))


def choose_window(
    head: LtdSettings,
    data: TrainingData,
    settings: TrainSettings,
    device: torch.device,
    budget: int,
    *,
    seed: int,
    progress: Progress,
    checkpoint_of: Callable[[LtdSettings], Checkpoint],
) -> tuple[LtdSettings, dict[str, Any]]:
    """Choose among the candidate windows of ``head`` by the held-out loss of the epoch that each would keep.

    Every window starts from the same seed, so the chosen head is the one that ``fixed:START`` trains. A stopped choice
    resumes from the checkpoints, which the caller removes.

    Args:
        head: settings with ``selection: halving``.
        data: the images to learn from, and those that choose.
        settings: of one training.
        device: where heads are trained.
        budget: bytes of features to hold.
        seed: of every window's training.
        progress: counts epochs of one window.
        checkpoint_of: where the training of a head with a fixed window is kept.

    Returns:
        The head with its window fixed, and facts for the metadata: the epochs at the end of each round, every window's
        held-out loss at the end of each of its rounds, and how surely the first beats the second; no facts where there
        is one window alone.

    Raises:
        SettingError: the window does not fit the candidates, or a loss is not finite.
    """
    spec = data.views[0].spec
    starts = head.starts_for(spec.blocks)
    fixed = {start: head.fixed_at(start) for start in starts}
    if len(fixed) == 1:
        return fixed[starts[0]], {}
    blocks = range(starts[0], starts[-1] + head.window)
    training, validation = data.batches(HeadInput(head.tap, tuple(blocks)), device, budget)
    trained = dict.fromkeys(fixed, 0)

    def train(start: int, until: int) -> tuple[float, torch.Tensor]:
        """Held-out loss of a window after ``until`` epochs, and the losses (N,) of the images after all so far."""
        torch.manual_seed(seed)
        module = build_head(fixed[start], blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
        module.to(device)
        history, _ = fit(
            module,
            training,
            validation,
            settings,
            seed=seed,
            checkpoint=checkpoint_of(fixed[start]),
            until=until,
        )
        progress.advance(max(0, len(history) - trained[start]))
        trained[start] = len(history)
        logits = logits_of(module, validation, settings.batch).double()
        losses = binary_cross_entropy_with_logits(logits, validation.labels.double(), reduction="none")
        return held_out_loss(history[:until]), losses

    plan = rounds_of(len(fixed), settings.epochs)
    losses: dict[int, list[float]] = {start: [] for start in fixed}
    of_images: dict[int, torch.Tensor] = {}
    ranked = list(fixed)
    for size, until in plan:
        ranked = ranked[:size]
        for start in ranked:
            loss, of_images[start] = train(start, until)
            losses[start].append(loss)
        ranked.sort(key=lambda start: (losses[start][-1], start))
    first, second = ranked[:2]
    difference = of_images[second] - of_images[first]
    return fixed[first], {
        "rule": head.selection,
        "epochs": [until for _, until in plan],
        "windows": [{"start": start, "held_out_losses": losses[start]} for start in fixed],
        "second": second,
        "difference": float(difference.mean()),
        "standard_error": float(difference.std() / len(difference) ** 0.5),
    }


def held_out_loss(history: Sequence[Epoch]) -> float:
    """Return the held-out loss of the epoch that would be kept."""
    return best_of(history).validation_loss
