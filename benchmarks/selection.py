"""Does a selection find its window? Every selection of the LTD head on planted features, over seeds.

2,000 training and 1,000 test images, 24 blocks of width 64; the class shows in blocks 8..12 alone, and only where all
of them are seen (tests/planted.py). Jumps of 1.5 and 3 are as long beside the noise of all 64 coordinates as jumps of 3
and 6 are at width 256. Five candidate windows or twenty. A line is one selection: in how many seeds it evaluates the
planted window, AP on the test images (mean and least), in how many seeds AP is within 0.01 of the planted window fixed,
and what it costs in trainings of one window. Last, two generators, whose traces lie in blocks 8..12 and 16..20.

python -m benchmarks.selection [--seeds 20] [--jumps 1.5 3]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from stages.heads.file import build_head
from stages.heads.head import HeadInput
from stages.heads.settings import LtdSettings, TrainSettings
from stages.train.batches import FeatureBatches
from stages.train.data import TrainingData
from stages.train.loop import logits_of, train_together
from stages.train.selection import choose_windows, doubts
from stages.train.training import Training
from storage.features import FeatureTable

FIRST, OTHER, WIDTH, BLOCKS = 8, 16, 64, 24
CPU = torch.device("cpu")
TRAIN = TrainSettings(lr=3e-3, epochs=6, batch=64)  # 168 steps
FEW, MANY = (6, 14), (0, 23)


def ltd(selection: str, candidates: tuple[int, int] | None = None, **more: float) -> LtdSettings:
    """The head under test."""
    return LtdSettings.model_validate({"dropout": 0.1, "selection": selection, "candidates": candidates, **more})


ONE = {
    "the planted window fixed": ltd(f"fixed:{FIRST}"),
    **{
        f"{name}, {windows} windows": settings
        for windows, candidates in ((5, FEW), (20, MANY))
        for name, settings in {
            "gumbel, as published": ltd("gumbel", candidates),
            "gumbel, selection_lr 0.05": ltd("gumbel", candidates, selection_lr=0.05),
            "halving": ltd("halving", candidates),
        }.items()
    },
}
TWO = {
    "both windows fixed": ltd(f"fixed:{FIRST},{OTHER}"),
    "the first fixed": ltd(f"fixed:{FIRST}"),
    "the second fixed": ltd(f"fixed:{OTHER}"),
    "halving:2, 20 windows": ltd("halving:2", MANY),
}


class Trial(NamedTuple):
    """What one training came to."""

    starts: list[Any]
    ap: float
    trainings: float
    in_doubt: bool


def main() -> None:
    """Print one line a selection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jumps", type=float, nargs="+", default=[1.5, 3.0])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        studies = [*((jump, None, ONE) for jump in options.jumps), (max(options.jumps), OTHER, TWO)]
        for number, (jump, other, selections) in enumerate(studies):
            views = Path(folder) / str(number)
            pool.submit(write, views, jump, other).result()
            generators = "one generator" if other is None else "two generators"
            print(f"{generators}, jumps of {jump:g}, {options.seeds} seeds", flush=True)
            jobs = [pool.submit(trials, views, selections, seed) for seed in range(options.seeds)]
            by_selection = list(zip(*(job.result() for job in jobs), strict=True))
            for name, own in zip(selections, by_selection, strict=True):
                print(line(name, own, by_selection[0]), flush=True)


def line(name: str, trials: tuple[Trial, ...], fixed: tuple[Trial, ...]) -> str:
    """One selection in one line."""
    found = sum(trial.starts == best.starts for trial, best in zip(trials, fixed, strict=True))
    near = sum(trial.ap >= best.ap - 0.01 for trial, best in zip(trials, fixed, strict=True))
    aps, costs = [trial.ap for trial in trials], [trial.trainings for trial in trials]
    return (
        f"  {name:37} found {found:2} of {len(trials)}, AP {np.mean(aps):.3f}, least {min(aps):.3f}, within 0.01 of "
        f"the first line {near:2}, trainings {np.mean(costs):.1f}, most {max(costs):.1f}; "
        f"in doubt {sum(trial.in_doubt for trial in trials)}"
    )


def write(views: Path, jump: float, other: int | None) -> None:
    """Write the planted views."""
    sys.path.insert(0, "tests")
    from planted import in_transitions, write_view  # noqa: PLC0415

    os.environ["LTDPIPE_STORE"] = str(views / "store")
    for name, images, seed in (("train", 2000, 0), ("test", 1000, 5)):
        tokens, labels = in_transitions(images, seed, first=FIRST, other=other, jump=jump, width=WIDTH)
        write_view(views / name, tokens, labels, seed=seed)


def trials(views: Path, selections: dict[str, LtdSettings], seed: int) -> list[Trial]:
    """Train with each selection and measure on unseen images; what several of them train is trained once."""
    torch.set_num_threads(1)
    data = TrainingData.open([views / "train"], views / "train", TRAIN)
    reads = HeadInput("cls", tuple(range(BLOCKS)))
    feeds = data.batches(reads, CPU, budget=2**30)
    table = FeatureTable.open(views / "test")
    test = FeatureBatches([table], np.arange(len(table)), reads, device=CPU, budget=2**30)

    def start(settings: LtdSettings) -> Training:
        of = f"{settings.selection}-{settings.candidates}-{settings.selection_lr}-{seed}"
        torch.manual_seed(seed)
        head = build_head(settings, blocks=BLOCKS, width=WIDTH, embedding=1)
        return Training(head, TRAIN, seed, kept=views / f"{of}.safetensors", announce=False)

    def trial(settings: LtdSettings) -> Trial:
        trainings, told = 1.0, dict[str, Any]()
        if settings.chosen_windows:
            chosen, told = choose_windows(
                settings,
                settings.starts_for(BLOCKS),
                lambda window: start(ltd(f"fixed:{window}")),
                feeds,
                epochs=TRAIN.epochs,
                at_once=20,
                progress=Silent(),
            )
            epochs = sum(told["epochs"][len(window["held_out_losses"]) - 1] for window in told["windows"])
            trainings = epochs / TRAIN.epochs + settings.chosen_windows - 1
            settings = ltd(f"fixed:{','.join(map(str, sorted(chosen)))}")
        (training,) = train_together([start(settings)], *feeds)
        (logits,) = logits_of([training.head], test, TRAIN.batch)
        facts = training.head.describe()
        starts = [value for name, value in facts.items() if name.startswith("window_start")]
        in_doubt = bool(told) and any(doubts({**facts, "window_selection": told}))
        return Trial(starts, float(average_precision_score(test.labels, logits)), trainings, in_doubt)

    return [trial(settings) for settings in selections.values()]


class Silent(nullcontext[None]):
    """Progress that nobody reads."""

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Nothing is shown."""


if __name__ == "__main__":
    main()
