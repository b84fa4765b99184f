"""Do two revisions of this project compute the same? The net under every rebuild.

Each revision is cloned and run as users run it: the demo study, the paper's study on miniatures, a mixed folder of
images through `extract`, and `bundle`, `calibrate` and `predict`. What every file says is hashed: the bytes of shards,
the tensors of heads, paths and logits of scores, metrics as canonical JSON, logits of predictions. File names of
settings and versions, which stand in the metadata, are not compared.

python -m benchmarks.golden OLD [NEW] [--demo-only] [--folder DIR]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from safetensors import safe_open

PROJECT = Path(__file__).resolve().parents[1]
HEAD = "heads/demo-train/ltd/0.safetensors"
SCORES = "scores/demo-test/demo-train/ltd-0/clean.parquet"
COMMANDS = (
    ("ltdpipe", "extract", "mixed", "--backbone", "demo-vit", "--out", "mixed-features"),
    ("ltdpipe", "bundle", HEAD, "-o", "detector.ltd"),
    ("ltdpipe", "calibrate", "detector.ltd", "--on", SCORES, "--target-fpr", "0.05"),
    ("ltdpipe", "predict", "detector.ltd", "mixed", "-o", "predicted.csv"),
)
PRINTED = 20


def main() -> None:
    """Run both revisions and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="A git revision, or a JSON file that an earlier run of it left.")
    parser.add_argument("new", nargs="?", default="HEAD", help="Likewise.")
    parser.add_argument("--demo-only", action="store_true", help="Leave the study on miniatures out.")
    parser.add_argument("--folder", type=Path, help="Where to work, and to leave REVISION.json.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        old, new = (hashes_of(name, folder, options.demo_only) for name in (options.old, options.new))
    differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    print(f"{len(old.keys() & new.keys()) - sum(name in old and name in new for name in differing)} files say the same")
    for name in differing[:PRINTED]:
        state = "differs" if name in old and name in new else "only in the old" if name in old else "only in the new"
        print(f"  {name}: {state}")
    if differing[PRINTED:]:
        print(f"  and {len(differing) - PRINTED} more")
    sys.exit(bool(differing))


def hashes_of(revision: str, folder: Path, demo_only: bool) -> dict[str, str]:
    """Return file name -> hash of what it says, of a revision that is run now or was before."""
    if Path(revision).suffix == ".json":
        return json.loads(Path(revision).read_text(encoding="utf-8"))
    clone = folder / revision.replace("/", "-")
    run(folder, "git", "clone", "--quiet", str(PROJECT), str(clone))
    run(clone, "git", "checkout", "--quiet", "--detach", _commit(revision))
    (clone / "dvc.lock").unlink(missing_ok=True)
    run(clone, "dvc", "repro", "--quiet")
    mixed_folder(clone / "mixed")
    for command in COMMANDS:
        run(clone, *command)
    studies = {"demo": clone}
    if not demo_only:
        run(clone, sys.executable, "-m", "benchmarks.study_mini")
        studies["mini"] = clone / ".ltdpipe" / "study-mini"
    hashes = {f"{study}/{name}": digest for study, where in studies.items() for name, digest in content(where).items()}
    clone.with_suffix(".json").write_text(json.dumps(hashes, indent=0, sort_keys=True), encoding="utf-8")
    return hashes


def content(clone: Path) -> dict[str, str]:
    """Hash what the files of a study say."""
    patterns = ("data/features/**/*.h5", "mixed-features/**/*.h5", "heads/**/*.safetensors", "scores/**/*.parquet")
    patterns = (*patterns, "reports/*/metrics.json", "analysis/*.parquet", "sweeps/*/*/results.csv", "predicted.csv")
    paths = sorted(path for pattern in patterns for path in clone.glob(pattern))
    return {str(path.relative_to(clone)): hashlib.sha256(said_by(path)).hexdigest() for path in paths}


def said_by(path: Path) -> bytes:
    """Return what a file says, without metadata that name versions, times and hashes of other files."""
    match path.suffix:
        case ".safetensors":
            with safe_open(path, framework="np") as file:
                return b"".join(name.encode() + file.get_tensor(name).tobytes() for name in sorted(file.keys()))
        case ".parquet":
            table = pq.read_table(path)
            names = [name for name in ("path", "label", "logit") if name in table.column_names]
            return json.dumps(table.select(names or table.column_names).to_pydict()).encode()
        case ".json":
            return json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=True).encode()
        case ".csv" if path.name == "predicted.csv":
            with path.open(newline="", encoding="utf-8") as file:
                return json.dumps([(row["path"], row["status"], row["logit"]) for row in csv.DictReader(file)]).encode()
    return path.read_bytes()


def mixed_folder(folder: Path) -> None:
    """Make pictures of several formats, modes and sizes, labelled and in two splits, and files that are none."""
    random = np.random.default_rng(0)
    kinds = (("jpg", "RGB"), ("png", "RGBA"), ("png", "L"), ("webp", "RGB"), ("tiff", "RGB"), ("bmp", "RGB"))
    for number in range(24):
        suffix, mode = kinds[number // 2 % len(kinds)]
        height, width = (int(size) for size in random.integers(100, 400, 2))
        picture = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
        where = folder / ("real" if number % 2 else "fake/made")
        where.mkdir(parents=True, exist_ok=True)
        picture.save(where / f"{number:02}.{suffix}")
    (folder / "real" / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not an image\n", encoding="utf-8")


def run(folder: Path, *command: str) -> None:
    """Run a command on the code of the clone that it runs in."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    subprocess.run(command, cwd=folder, env={**os.environ, **settings}, check=True)


def _commit(revision: str) -> str:
    """Return a revision's hash: a clone does not know the branches of this repository by their names."""
    command = ("git", "rev-parse", "--verify", f"{revision}^{{commit}}")
    return subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
