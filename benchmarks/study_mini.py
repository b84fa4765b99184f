"""The profile `paper` from data root to tables, on miniatures of its benchmarks, in a clone of this project.

Prints the wall time of each stage kind, of a second run that has nothing to do, and where the report lies. The pictures
mean nothing; what is shown is that every corpus, head, table and figure of the study is there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import yaml

from pipeline.validation import load_yaml
from stages.demo.miniatures import run as make_miniatures

CLONE = Path(".ltdpipe", "study-mini")
SETTINGS = {"seeds": [0], "sweeps": {"window": ["progan"], "layer": ["progan", "sdv14"], "generators": []}}


def main() -> None:
    """Make the clone where there is none yet, and run."""
    if not CLONE.exists():
        subprocess.run(["git", "clone", "--quiet", ".", str(CLONE)], check=True)
        make_miniatures(root=CLONE / "miniatures", test_images=6, training_images=20)
        profile = load_yaml((CLONE / "profiles" / "paper.yaml").read_text(encoding="utf-8"), "profiles/paper.yaml")
        profile["extract"]["backbone"] = "demo-vit"
        profile["train"] |= {"epochs": 2, "batch": 16}
        (CLONE / "profiles" / "paper.yaml").write_text(yaml.safe_dump(profile | SETTINGS), encoding="utf-8")
        _run("ltdpipe", "profile", "use", "paper", "--data", "miniatures")
    started = time.monotonic()
    seconds = _repro()
    print(f"dvc repro: {time.monotonic() - started:.0f} s")
    for kind, spent in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {kind:12} {spent:6.1f} s")
    started = time.monotonic()
    _run("dvc", "repro", "--quiet")
    print(f"dvc repro with nothing to do: {time.monotonic() - started:.1f} s")
    print(f"report: {CLONE / 'reports' / 'paper' / 'report.html'}")


def _repro() -> dict[str, float]:
    """Run the graph; return kind of stage -> seconds, from the start of a stage to the start of the next."""
    seconds: dict[str, float] = defaultdict(float)
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=CLONE, env=_environment(), stdout=subprocess.PIPE, text=True, bufsize=1
    )
    kind, since = "", time.monotonic()
    for line in process.stdout or ():
        found = re.match(r"Running stage '(.+?)'", line)
        if found:
            if kind:
                seconds[kind] += time.monotonic() - since
            kind, since = found[1].partition("@")[0], time.monotonic()
    if kind:
        seconds[kind] += time.monotonic() - since
    if process.wait() != 0:
        sys.exit(process.returncode)
    return seconds


def _run(*command: str) -> None:
    subprocess.run(command, cwd=CLONE, env=_environment(), check=True)


def _environment() -> dict[str, str]:
    """The clone's own code, with the programs of this environment."""
    return {**os.environ, "PYTHONPATH": str(CLONE.absolute()), "DVC_NO_ANALYTICS": "1"}


if __name__ == "__main__":
    main()
