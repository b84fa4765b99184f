"""How long `dvc repro` takes when there is nothing to do on the graph of the paper's study.

The outs of the study are small files in their real number, taken into the cache by `dvc commit`: what DVC does to find
that nothing has changed depends on how many stages and files there are, not on what is in them.

python -m benchmarks.repro [--profile paper] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from dvc.repo import Repo

from pipeline.params import load_params
from storage.views import view_directories

if TYPE_CHECKING:
    from pipeline.params import Params

# Images that the manifests of the paper's corpora list, by the published sizes (stages/scan/protocols.yaml).
IMAGES = {"progan": 72_000, "sdv14": 236_000, "ufd": 73_000, "genimage": 100_000, "drct2m": 70_000}
SHARD = 1024
HEAD_FILES = (".safetensors", ".csv")
PROJECT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Make the study and time the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="Where to write; default: the temporary folder.")
    parser.add_argument("--profile", default="paper", help="Whose graph is timed.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        no_op_study(project_in(Path(folder, "study")), options.profile)


def project_in(folder: Path) -> Path:
    """Make a repository that holds the code of this one, and no stage."""
    folder.mkdir()
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    for name in (".dvc/config", ".dvcignore"):
        shutil.copy(PROJECT / name, folder / name)
    for name in ("storage", "stages"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a command in the repository and return what it says."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LTDPIPE_STORE": str(folder / ".ltdpipe" / "store"),
        "DVC_NO_ANALYTICS": "1",
    }
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def seconds_of_repro(folder: Path) -> float:
    """Return the median of five runs that find nothing to do."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        said = run(folder, "dvc", "repro")
        times.append(time.perf_counter() - started)
        if "up to date" not in said or "Running stage" in said:
            raise SystemExit(f"this run had something to do:\n{said}")
    return statistics.median(times)


def no_op_study(folder: Path, profile: str) -> None:
    """Time `dvc repro` with nothing to do on all stages of a profile, with as many files as the benchmarks give."""
    shutil.copy(PROJECT / "dvc.yaml", folder)
    shutil.copy(PROJECT / "profiles" / f"{profile}.yaml", folder / "params.yaml")
    params = load_params(folder / "params.yaml")
    for name in ("corpora", "sweeps"):
        (folder / name).mkdir()
    for name in params.corpora:
        (folder / "corpora" / f"{name}.parquet").write_bytes(name.encode())
    stages = Repo(str(folder)).index.stages
    files = sum(fabricate(Path(out.fs_path), params) for stage in stages for out in stage.outs)
    started = time.perf_counter()
    run(folder, "dvc", "commit", "-q", "--force")
    print(f"dvc commit of {len(stages)} stages: {time.perf_counter() - started:.0f} s")
    seconds = seconds_of_repro(folder)
    print(f"no-op dvc repro, profile {profile}: {len(stages)} stages, {files} files: {seconds:.2f} s")


def fabricate(out: Path, params: Params) -> int:
    """Write what a stage would leave, and return how many files that are."""
    corpus = params.corpora.get(out.name) if out.parent.name == "features" else None
    if corpus is not None:
        shards = -(-IMAGES[out.name] // SHARD)
        names = [f"shard-{n:05d}{end}" for n in range(shards) for end in (".h5", ".rows")]
        paths = [out / view / name for view in view_directories(corpus.views) for name in ("index.parquet", *names)]
    elif out.suffix:
        paths = [out]
    elif out.parent.name == "heads":
        paths = [out / head / f"{seed}{end}" for head in params.heads for seed in params.seeds for end in HEAD_FILES]
    elif out.parent.name == "scores":
        views = [*view_directories(params.corpora[out.name].views), "held-out", "matched-jpeg+size"]
        runs = product(params.train_on, params.heads, params.seeds, views)
        paths = [out / trained / f"{head}-{seed}" / f"{view}.parquet" for trained, head, seed, view in runs]
    else:
        paths = [out / name for name in ("results.csv", "sweep.json")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    return len(paths)


if __name__ == "__main__":
    main()
