"""Which windows of blocks an LTD head reads, chosen by held-out loss: every candidate trains a head of its own.

A head that reads all windows at once would have to learn each of them; on planted features it found none
(docs/heads.md), while one head a window is affordable because the features are cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.train.loop import train_together
from stages.train.training import best_of, losses_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from stages.heads.settings import LtdSettings
    from stages.reporter import Progress
    from stages.train.batches import FeatureBatches
    from stages.train.training import Training

TO_THE_END = 5  # the best windows so far, which are never dropped
_CLEARLY = 2  # standard errors of the mean difference of the losses, paired by image


def choose_windows(
    asked: LtdSettings,
    starts: Sequence[int],
    start_training: Callable[[int], Training],
    feeds: tuple[FeatureBatches, FeatureBatches],
    *,
    epochs: int,
    at_once: int,
    progress: Progress,
) -> tuple[list[int], dict[str, Any]]:
    """Choose windows by the held-out loss of the epoch that each would keep.

    Up to five windows are trained to the end. More are compared after each epoch from a quarter of all on. Nothing is
    dropped until the windows that would be chosen are clearly better than guessing; then those that are clearly worse
    are, and from half of the epochs on all but the best five.

    Every window starts from the same seed, so the chosen head is the one that ``fixed:START`` trains. A stopped choice
    resumes from what its trainings keep, which the caller removes.

    Args:
        asked: says how many windows are chosen, and which go together.
        starts: first blocks of the windows, two or more.
        start_training: first block -> the training of that window, as far as it was kept.
        feeds: the images to learn from, and those that choose.
        epochs: of a whole training.
        at_once: how many windows are trained together.
        progress: counts epochs of one window; those that are spared too, at the end.

    Returns:
        First blocks of the chosen windows, the best first; and facts for the metadata: the epochs after which windows
        were compared, each window's held-out losses then, those that were dropped without being clearly worse, and how
        surely the best window beats the second.

    Raises:
        SettingError: a loss is not finite.
    """
    told: dict[int, list[float]] = {start: [] for start in starts}
    ranked, left, in_doubt = list(starts), list(starts), list[int]()
    ends, spared = [0], len(starts) * epochs
    labels = feeds[1].labels.cpu()
    guessing = losses_of(labels.double().mean().logit().expand_as(labels), labels)
    while ends[-1] < epochs:
        ends.append(epochs if len(left) <= TO_THE_END else max(ends[-1] + 1, -(-epochs // 4)))
        losses: dict[int, Tensor] = {}
        for at in range(0, len(left), at_once):
            part = {start: start_training(start) for start in left[at : at + at_once]}
            list(train_together(list(part.values()), *feeds, until=ends[-1]))
            for start, each in part.items():
                best = best_of(each.history[: ends[-1]])
                told[start].append(best.validation_loss)
                losses[start] = losses_of(each.logits[best.epoch], labels)
            new = len(part) * (ends[-1] - ends[-2])
            progress.advance(new)
            spared -= new
        left.sort(key=lambda start: (told[start][-1], start))
        picked, kept = asked.pick(left), left
        if ends[-1] < epochs and _is_clearly_worse(guessing, losses[picked[-1]]):
            kept = list(dict.fromkeys([*picked, *left]))
            unclear = [start for start in kept[TO_THE_END:] if not _is_clearly_worse(losses[start], losses[picked[-1]])]
            if 2 * ends[-1] >= epochs:
                in_doubt, unclear = unclear, []
            kept = [*kept[:TO_THE_END], *unclear]
        ranked[: len(left)] = [*kept, *(start for start in left if start not in kept)]
        left = kept
    progress.advance(spared)
    first, second = ranked[:2]
    difference, error = _difference(losses[second], losses[first])
    return asked.pick(ranked), {
        "rule": "halving",
        "epochs": ends[1:],
        "windows": [{"start": start, "held_out_losses": own} for start, own in told.items()],
        **({"dropped_in_doubt": in_doubt} if in_doubt else {}),
        "second": second,
        "difference": difference,
        "standard_error": error,
    }


def doubts(facts: dict[str, Any]) -> Iterator[str]:
    """Yield what the images left undecided in the choice that a head's facts tell of."""
    told = facts["window_selection"]
    if dropped := told.get("dropped_in_doubt"):
        yield (
            f"the windows from blocks {', '.join(map(str, dropped))} were dropped, though not clearly worse in "
            "held-out loss: set fewer candidates, or train for more epochs"
        )
    difference, error = told["difference"], told["standard_error"]
    if difference <= error and "window_start_2" not in facts:
        yield (
            f"the windows from block {facts['window_start']} and {told['second']} differ by {difference:.4f} in "
            f"held-out loss, within one standard error ({error:.4f}): the images do not decide between them"
        )


def _difference(losses: Tensor, others: Tensor) -> tuple[float, float]:
    """Mean of the differences of losses (N,), paired by image, and its standard error."""
    difference = losses - others
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)


def _is_clearly_worse(losses: Tensor, than: Tensor) -> bool:
    difference, error = _difference(losses, than)
    return difference > _CLEARLY * error
