"""How long `dvc repro` takes when there is nothing to do, beside a large corpus.

python -m benchmarks.repro [--rows 100000] [--folder DIR]
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
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from storage.manifest import manifest_table, write_manifest
from storage.publish import publish
from storage.spec import FeatureSpec
from storage.store import ShardFolder

if TYPE_CHECKING:
    import pyarrow as pa

PROJECT = Path(__file__).resolve().parents[1]
SPEC = FeatureSpec(
    backbone="synthetic",
    weights="0" * 64,
    activation="quickgelu",
    blocks=4,
    stored_blocks=(0, 1, 2, 3),
    width=128,
    embedding=1,
    taps=("cls",),
    view={},
    mean=(0, 0, 0),
    std=(1, 1, 1),
    precision="fp32",
    extractor=0,
)


def main() -> None:
    """Make the corpus and time the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="Where to write; default: the temporary folder.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        no_op_repro(Path(folder), options.rows)


def no_op_repro(folder: Path, rows: int) -> None:
    """Time `dvc repro` with nothing to do, after the features of a corpus were published and taken into the cache.

    The features are synthetic, so that no image is read; the stage is that of dvc.yaml, with its command left out.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LTDPIPE_STORE": str(folder / ".ltdpipe" / "store"),
        "DVC_NO_ANALYTICS": "1",
    }

    def run(*command: str) -> None:
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

    run("git", "init", "-q")
    run("dvc", "init", "-q")
    for name in (".dvc/config", ".dvcignore"):
        shutil.copy(PROJECT / name, folder / name)
    for name in ("storage", "stages"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    store = ShardFolder(folder / ".ltdpipe" / "store" / SPEC.key / "big", SPEC)
    manifest = big_manifest(rows)
    random = np.random.default_rng(0)
    with store.lock(print):
        for number, start in enumerate(range(0, rows, 1024)):
            part = manifest.slice(start, 1024).to_pylist()
            cls = random.standard_normal((4, len(part), 128), dtype=np.float32).astype(np.float16)
            store.add(number, {"cls": cls}, [row | {"status": "ok", "row": at} for at, row in enumerate(part)])
        finished = store.clean(print)
        published = store.write_index(manifest, finished, finished.locate(manifest), "big")
        publish(store.directory, folder / "data" / "features" / "big" / "clean", published.shards, print)
    (folder / "corpora").mkdir()
    write_manifest(manifest, folder / "corpora" / "big.parquet")
    (folder / "dvc.yaml").write_text(
        "stages:\n  extract:\n    cmd: ltdpipe extract --corpus big\n"
        "    deps: [stages/extract, storage, corpora/big.parquet]\n    outs: [data/features/big]\n"
    )
    run("dvc", "commit", "-q", "--force")
    times = []
    for _ in range(5):
        start_s = time.perf_counter()
        run("dvc", "repro")
        times.append(time.perf_counter() - start_s)
    print(f"no-op dvc repro, {rows} rows in {len(finished.shards)} shards: {statistics.median(times):.2f} s")


def big_manifest(rows: int) -> pa.Table:
    """Return a manifest of ``rows`` images."""
    return manifest_table(
        {"path": f"fake/{i:07d}.png", "label": 1, "generator": "synthetic", "sets": ["synthetic"]}
        | {"size_bytes": i, "mtime_ns": i}
        for i in range(rows)
    )


if __name__ == "__main__":
    main()
