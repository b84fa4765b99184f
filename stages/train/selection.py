"""Which window of blocks an LTD head reads, chosen by held-out loss: every candidate trains a head of its own.

With up to five windows all are trained to the end; with more, the worse half is dropped round by round (successive
halving). A head that reads all windows at once would have to learn each of them; on planted features it found none
(docs/heads.md), while one head a window is affordable because the features are cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.functional import binary_cross_entropy_with_logits

from stages.train.loop import logits_of, train_together
from stages.train.training import best_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from stages.reporter import Progress
    from stages.train.batches import FeatureBatches
    from stages.train.training import Training

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
    starts: Sequence[int],
    start_training: Callable[[int], Training],
    training: FeatureBatches,
    validation: FeatureBatches,
    *,
    at_once: int,
    progress: Progress,
) -> tuple[list[int], dict[str, Any]]:
    """Rank windows by the held-out loss of the epoch that each would keep.

    Every window starts from the same seed, so the chosen head is the one that ``fixed:START`` trains. A stopped choice
    resumes from what its trainings keep, which the caller removes.

    Args:
        starts: first blocks of the windows, two or more.
        start_training: first block -> the training of that window, as far as it was kept.
        training: the images to learn from.
        validation: those that choose.
        at_once: how many windows are trained together.
        progress: counts epochs of one window.

    Returns:
        First blocks of the windows, the best first, whose training is kept at its end, and the first to be dropped
        last; and facts for the metadata: the epochs at the end of each round, every window's held-out loss at the end
        of each of its rounds, and how surely the first beats the second.

    Raises:
        SettingError: a loss is not finite.
    """
    losses: dict[int, list[float]] = {start: [] for start in starts}
    of_images: dict[int, torch.Tensor] = {}
    epochs = dict.fromkeys(starts, 0)
    settings = start_training(starts[0]).settings
    plan = rounds_of(len(starts), settings.epochs)
    ranked = list(starts)
    for size, until in plan:
        for at in range(0, size, at_once):
            part = {start: start_training(start) for start in ranked[at : min(at + at_once, size)]}
            list(train_together(list(part.values()), training, validation, until=until))
            logits = logits_of([each.head for each in part.values()], validation, settings.batch).double()
            for (start, each), own in zip(part.items(), logits, strict=True):
                of_images[start] = binary_cross_entropy_with_logits(own, validation.labels.double(), reduction="none")
                losses[start].append(best_of(each.history[:until]).validation_loss)
                progress.advance(len(each.history) - epochs[start])
                epochs[start] = len(each.history)
        ranked[:size] = sorted(ranked[:size], key=lambda start: (losses[start][-1], start))
    first, second = ranked[:2]
    difference = of_images[second] - of_images[first]
    return ranked, {
        "rule": "halving",
        "epochs": [until for _, until in plan],
        "windows": [{"start": start, "held_out_losses": losses[start]} for start in starts],
        "second": second,
        "difference": float(difference.mean()),
        "standard_error": float(difference.std() / len(difference) ** 0.5),
    }
