"""Does a selection find its window? Every selection of the LTD head on planted features, over seeds.

2,000 training and 1,000 test images, 24 blocks of width 256; the class shows in blocks 8..12 alone, and only where all
of them are seen (tests/planted.py). Five candidate windows or twenty, two lengths of the planted jumps. A line is one
selection: in how many seeds it evaluates the planted window, AP on the test images (mean and least), how many seeds are
within 0.01 AP of the planted window fixed, and what it costs in trainings of one fixed window. Last, two generators
whose traces lie in blocks 8..12 and 16..20: one window against two.

python -m benchmarks.selection [--seeds 20] [--jumps 3 6] [--windows 5 20]
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
from sklearn.metrics import average_precision_score

from stages.heads.file import TrainedHead, score
from stages.heads.settings import LtdSettings, TrainSettings
from stages.train.run import HeadToTrain, run
from stages.train.selection import epochs_of
from storage.features import FeatureTable

FIRST, OTHER, WIDTH = 8, 16, 256
CANDIDATES = {5: (6, 14), 20: (0, 23)}
TRAIN = TrainSettings(lr=1e-3, epochs=10, batch=64)  # 280 steps
FIXED = "fixed on the planted window"
SELECTIONS: dict[str, dict[str, Any]] = {
    FIXED: {"selection": f"fixed:{FIRST}"},
    "gumbel, as published": {"selection": "gumbel"},
    "gumbel, selection_lr 0.05": {"selection": "gumbel", "selection_lr": 0.05},
    "halving": {"selection": "halving"},
}


# of two generators
TWO: dict[str, dict[str, Any]] = {
    "fixed on both windows": {"selection": f"fixed:{FIRST},{OTHER}"},
    "fixed on the first": {"selection": f"fixed:{FIRST}"},
    "fixed on the second": {"selection": f"fixed:{OTHER}"},
    "halving:2": {"selection": "halving:2"},
}


class Trial(NamedTuple):
    """What one training came to."""

    starts: tuple[int, ...]
    ap: float
    in_doubt: bool


def main() -> None:
    """Print one line a selection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jumps", type=float, nargs="+", default=[3.0, 6.0])
    parser.add_argument("--windows", type=int, nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, get_context("spawn")) as pool:
        studies = [(jump, windows, None, SELECTIONS) for jump in options.jumps for windows in options.windows]
        for jump, windows, other, selections in [*studies, (max(options.jumps), 20, OTHER, TWO)]:
            views = Path(folder) / f"jump-{jump:g}-{other}"
            if not views.exists():
                pool.submit(write, views, jump, other).result()
            generators = "one generator" if other is None else "two generators"
            print(f"{generators}, jumps of {jump:g}, {windows} windows, {options.seeds} seeds", flush=True)
            fixed: list[Trial] = []
            for name, selection in selections.items():
                jobs = [pool.submit(trial, views, selection, windows, seed) for seed in range(options.seeds)]
                trials = [job.result() for job in jobs]
                fixed = fixed or trials
                print(line(name, trials, fixed, windows), flush=True)


def line(name: str, trials: list[Trial], fixed: list[Trial], windows: int) -> str:
    """One selection in one line."""
    found = sum(trial.starts == best.starts for trial, best in zip(trials, fixed, strict=True))
    near = sum(trial.ap >= best.ap - 0.01 for trial, best in zip(trials, fixed, strict=True))
    aps = [trial.ap for trial in trials]
    chooses = name.startswith("halving")
    cost = (epochs_of(windows, TRAIN.epochs) / TRAIN.epochs if chooses else 1) + (name == "halving:2")
    doubt = f"; in doubt {sum(trial.in_doubt for trial in trials)}" if chooses else ""
    return (
        f"  {name:28} planted windows {found:2} of {len(trials)}, AP {np.mean(aps):.3f}, least {min(aps):.3f}, "
        f"within 0.01 of the first line {near:2}, {cost:g} trainings{doubt}"
    )


def write(views: Path, jump: float, other: int | None) -> None:
    """Write the planted views."""
    sys.path.insert(0, "tests")
    from planted import in_transitions, write_view  # noqa: PLC0415

    os.environ["LTDPIPE_STORE"] = str(views / "store")
    for name, images, seed in (("train", 2000, 0), ("test", 1000, 5)):
        tokens, labels = in_transitions(images, seed, first=FIRST, other=other, jump=jump, width=WIDTH)
        write_view(views / name, tokens, labels, seed=seed)


def trial(views: Path, selection: dict[str, Any], windows: int, seed: int) -> Trial:
    """Train one head and measure it on images that it has not seen."""
    os.environ["LTDPIPE_STORE"] = str(views / "store")
    candidates = None if selection["selection"].startswith("fixed") else CANDIDATES[windows]
    head = LtdSettings.model_validate({"dropout": 0.1, "candidates": candidates, **selection})
    name = "-".join(map(str, selection.values()))
    out = views / f"{name}-{windows}-{seed}.safetensors"
    (summary,) = run(
        views=[views / "train"],
        validation_view=views / "train",
        heads=[HeadToTrain(name=name, settings=head, seed=seed, out=out)],
        settings=TRAIN,
        reporter=Silent(),
        threads=1,
    )
    test = FeatureTable.open(views / "test")
    logits = score([TrainedHead.load(out).module], test, np.arange(len(test)))[0]
    doubt = summary.facts.get("window_selection", {"difference": 1, "standard_error": 0})
    return Trial(
        tuple(start for name, start in summary.facts.items() if name.startswith("window_start")),
        float(average_precision_score(test.index["label"].to_numpy(), logits)),
        doubt["difference"] <= doubt["standard_error"],
    )


class Silent:
    """A reporter that nobody reads."""

    def note(self, line: str) -> None:
        """Nothing is shown."""

    warn = note

    def progress(self, *_: object) -> nullcontext[Silent]:
        """Itself."""
        return nullcontext(self)

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Nothing is shown."""


if __name__ == "__main__":
    main()
