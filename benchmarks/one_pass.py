"""Heads of a study trained and scored in one pass over the features, against one process per head.

Run in the project's folder: ``python -m benchmarks.one_pass [SAMPLE]``. A study of 12 heads, 3 seeds and 3 corpora is
made of planted features; each way works in a store of its own. Of the processes per head SAMPLE are run (6 of each kind
without it) and the rest is extrapolated. Times are wall and, steadier on a busy machine, CPU. The sample's files are
compared with those of the one pass, byte by byte.
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from runpy import run_path

import yaml

PROJECT = Path(__file__).resolve().parents[1]
CORPORA, SEEDS = ("one", "two", "three"), (0, 1, 2)
HEADS = {
    "ltd": {"type": "ltd", "selection": "halving", "candidates": [12, 18]},
    **{f"ltd-{start}": {"type": "ltd", "selection": f"fixed:{start}"} for start in (11, 13, 15)},
    "ltd-raw": {"type": "ltd", "selection": "fixed:14", "branches": ["raw"]},
    "ltd-delta": {"type": "ltd", "selection": "fixed:14", "branches": ["delta"]},
    "univfd": {"type": "univfd", "train": {"epochs": 5}},
    "rine": {"type": "rine", "project": 64},
    "layers": {"type": "ltd", "window": 24, "selection": "fixed:0", "branches": ["raw"]},
    **{f"linear-{block}": {"type": "linear", "block": block} for block in (10, 16, 23)},
}
PARAMS = {
    "study": "one-pass",
    "notes": [],
    "demo": {},
    "corpora": {name: {"root": name} for name in CORPORA},
    "extract": {"backbone": "demo-vit", "weights": "default", "taps": ["cls", "ln2_cls", "embedding"]},
    "heads": HEADS,
    "train_on": list(CORPORA),
    "seeds": list(SEEDS),
    "train": {"lr": 0.001, "epochs": 3, "batch": 64},
    "sweeps": {"window": [], "layer": [], "generators": []},
    "evaluate": {"corpora": list(CORPORA), "match": []},
}


def main(sample: int = 6) -> None:
    """Run both ways and print their times and ratio."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
        planted = run_path(str(PROJECT / "tests" / "planted.py"))
        for number, name in enumerate(CORPORA):
            tokens = planted["in_transitions"](1000, seed=number, width=64)
            planted["write_view"](folder / "data" / "features" / name / "clean", *tokens, sets=("a", "b"))
        passes = [("train", "--trained-on", name) for name in CORPORA]
        passes += [("evaluate", "--corpus", name) for name in CORPORA]
        one_pass = [run(folder, "one", *arguments) for arguments in passes]
        made = {path: path.read_bytes() for path in folder.glob("*s/*/**/*.*") if path.parts[-3] != "features"}
        heads = list(itertools.product(CORPORA, HEADS, map(str, SEEDS)))
        chosen = heads[:: len(heads) // sample][:sample]
        trained = [
            run(folder, "each", "train", "--trained-on", name, "--head", head, "--seed", seed)
            for name, head, seed in chosen
        ]
        scored = [
            run(
                folder, "each", "evaluate", "--corpus", CORPORA[0], "--trained-on", name, "--head", head, "--seed", seed
            )
            for name, head, seed in chosen
        ]
        assert {path: path.read_bytes() for path in made} == made, "the two ways differ"
    for at, what in enumerate(("wall", "CPU")):
        each = len(heads) * (mean(trained, at) + len(CORPORA) * mean(scored, at))
        together = sum(times[at] for times in one_pass)
        print(
            f"{what}: one process per head {each:.0f} s (extrapolated from {sample} of {len(heads)} trainings and "
            f"{sample} of {len(CORPORA) * len(heads)} evaluations), one pass {together:.0f} s: {each / together:.1f} x"
        )


def run(folder: Path, store: str, *arguments: str) -> tuple[float, float]:
    """Run a command in a store of its own and return its wall and CPU seconds."""
    variables = {"LTDPIPE_STORE": str(folder / "stores" / store), "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(Path(sys.executable).with_name("ltdpipe")), *arguments]
    subprocess.run(command, cwd=folder, env={**os.environ, **variables}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def mean(times: list[tuple[float, float]], at: int) -> float:
    """Return the mean of wall (0) or CPU (1) seconds."""
    return sum(each[at] for each in times) / len(times)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
