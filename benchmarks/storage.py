"""What the feature cache costs: ratios against plain numpy files of the same bytes, measured in turns in one run.

    python -m benchmarks.storage [--images 2048] [--rounds 15] [--index-rows 1000000] [--folder DIR]
    python -m benchmarks.storage --plan-rows 25000000 --views 1      planning and indexes alone

A cold read comes after the file's pages were dropped from the operating system's cache (posix_fadvise, checked with
mincore by `fincore` where it is installed); a disk's or a host's own cache may still hold them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.timing import compare, drop
from storage.atomic import fsync
from storage.corpus_folder import CorpusFolder
from storage.index import (
    IDENTITY,
    INDEX_NAME,
    INDEX_SCHEMA,
    SIDECAR,
    SIDECAR_SCHEMA,
    Index,
    ShardRecord,
    remember_sound,
    write_index,
    write_sidecar,
)
from storage.manifest import MANIFEST_SCHEMA
from storage.shard import Shard, write_shard

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PROJECT = Path(__file__).resolve().parents[1]
BLOCKS = range(11, 20)
SPEC = replace(run_path(str(PROJECT / "tests" / "planted.py"))["SPEC"], width=1024, embedding=768, taps=("cls",))


def main() -> None:
    """Run all measurements and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--index-rows", type=int, default=1_000_000)
    parser.add_argument("--plan-rows", type=int)
    parser.add_argument("--views", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="Where to write; default: the temporary folder.")
    options = parser.parse_args()
    if options.plan_rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            planning(Path(folder), options.plan_rows, options.views)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shards(Path(folder), options.images, options.rounds)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        index(Path(folder), options.index_rows)


def shards(folder: Path, images: int, rounds: int) -> None:
    """Compare a shard with numpy's own file and with a chunked HDF5 file of the same numbers."""
    random = np.random.default_rng(0)
    cls = random.standard_normal((24, images, 1024), dtype=np.float32).astype(np.float16)
    ours, numpys, chunked = folder / "shard.h5", folder / "array.npy", folder / "chunked.h5"
    print(f"{images} images of ViT-L/14, {cls.nbytes / 1e6:.0f} MB, median of {rounds} rounds in turns")

    def save_numpy() -> None:
        np.save(numpys, cls)
        fsync(numpys)

    def remove() -> None:
        ours.unlink(missing_ok=True)
        numpys.unlink(missing_ok=True)
        os.sync()  # else whoever writes first also waits for the removal to reach the disk

    writing = {"shard": lambda: write_shard(ours, {"cls": cls}, SPEC), "np.save": save_numpy}
    compare("write + fsync", writing, rounds=rounds, baseline="np.save", before=remove, before_each=False)
    with h5py.File(chunked, "w") as file:
        file.create_dataset("cls", data=np.ascontiguousarray(cls.transpose(1, 0, 2)), chunks=(16, 24, 1024))
    fsync(chunked)
    print(f"  size on disk: {ours.stat().st_size / cls.nbytes:.4f} of the raw bytes")

    shard, every = Shard.open(ours), np.arange(images)
    scattered = np.sort(random.choice(images, min(256, images // 2), replace=False))

    def read(rows: NDArray[np.int64], blocks: range) -> NDArray[np.float16]:
        out = np.empty((len(rows), len(blocks), 1024), np.float16)
        shard.read("cls", list(blocks), rows, out)
        return out

    def chunked_rows() -> NDArray[np.float16]:
        with h5py.File(chunked, "r") as file:
            return np.asarray(file["cls"][scattered, BLOCKS.start : BLOCKS.stop])

    def numpy_map(rows: NDArray[np.int64] | slice) -> NDArray[np.float16]:
        array = np.load(numpys, mmap_mode="r")[BLOCKS.start : BLOCKS.stop]
        return np.ascontiguousarray(array[:, rows].transpose(1, 0, 2))

    readings: dict[str, dict[str, Callable[[], object]]] = {
        "the whole": {"np.load": lambda: np.load(numpys), "shard": lambda: read(every, range(24))},
        "blocks 11..19": {
            "np.load of the whole": lambda: np.load(numpys),
            "shard": lambda: read(every, BLOCKS),
            "np.memmap": lambda: numpy_map(slice(None)),
        },
        f"{len(scattered)} random rows x 9 blocks": {
            "chunked h5py": chunked_rows,
            "shard": lambda: read(scattered, BLOCKS),
            "np.memmap": lambda: numpy_map(scattered),
        },
    }
    files = [ours, numpys, chunked]
    for state, before in (("cold", lambda: drop(files)), ("warm", lambda: None)):
        for what, programs in readings.items():
            compare(f"read {what}, {state}", programs, rounds=rounds, baseline=next(iter(programs)), before=before)


def index(folder: Path, rows: int) -> None:
    """Write an index, and open and filter it in a process of its own, whose peak memory is then known."""
    path = folder / INDEX_NAME
    table, records = big_index(rows)
    start = time.perf_counter()
    write_index(path, Index(table, SPEC, "synthetic", records))
    seconds = time.perf_counter() - start
    print(f"index of {rows} rows, 1 % failed: written in {seconds:.2f} s, {path.stat().st_size / 1e6:.0f} MB")
    os.environ["LTDPIPE_STORE"] = str(folder / "store")
    for record in records:  # opening looks at each shard's size and memory of soundness
        shard = folder / record.name
        with shard.open("wb") as file:
            file.truncate(record.size_bytes)
        remember_sound(record.sha256, shard.stat())
    script = (
        "import sys, time; from pathlib import Path; from storage.features import FeatureTable\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1000\n"
        "imports, start = peak(), time.perf_counter()\n"
        "table = FeatureTable.open(Path(sys.argv[1])); opened = time.perf_counter()\n"
        "chosen = table.rows_of_set('set-7'); done = time.perf_counter()\n"
        "print(f'  opened in {opened - start:.2f} s, {len(chosen)} rows of one set in {done - opened:.2f} s, '\n"
        "      f'peak memory {peak():.0f} MB, {imports:.0f} MB of it imports')"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", script, folder], env=environment, check=True)


def planning(folder: Path, rows: int, views: int) -> None:
    """Plan what nearly finished views lack, then merge their sidecars, in a process whose peak memory is then known."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    os.fsync = lambda _: None  # thousands of sidecars
    folders = [CorpusFolder(folder / f"view-{view}", replace(SPEC, view={"view": view})) for view in range(views)]
    writers: list[pq.ParquetWriter] = []
    for first in range(0, rows, 1 << 20):
        count = min(1 << 20, rows - first)
        numbers = np.arange(first, first + count)
        sets = [f"generator-{number // 50_000:03d}" for number in numbers]
        columns = {
            "path": [
                f"images-of-a-benchmark/test/{name}/1_fake/{first + at:038d}.v1.jpeg" for at, name in enumerate(sets)
            ],
            "label": np.ones(count),
            "generator": sets,
            "split": ["test"] * count,
            "sets": [[name] for name in sets],
            "size_bytes": numbers + 50_000,
            "mtime_ns": numbers + 1_700_000_000_000_000_000,
        }
        table = pa.table(
            [pa.array(columns.get(field.name, pa.nulls(count))).cast(field.type) for field in MANIFEST_SCHEMA],
            schema=MANIFEST_SCHEMA,
        )
        if not writers:
            writers.append(pq.ParquetWriter(folder / "manifest.parquet", MANIFEST_SCHEMA))
        writers[0].write_table(table)
        for start in range(0, count, 1024):
            images = table.select(IDENTITY).slice(start, 1024)
            if first + start + 2048 < rows:  # one or two shards are missing
                _sidecars(folders, (first + start) // 1024, images)
    writers[0].close()
    print(f"{rows} rows of {len(columns['path'][0])} bytes in {views} views, all but the last {2048} done", flush=True)
    script = (
        "import sys, time; from pathlib import Path; from storage.corpus_folder import CorpusFolder\n"
        "from stages.extract.plan import plan_shards; from storage.manifest import read_manifest\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1000\n"
        "top = Path(sys.argv[1]); imports = peak(); manifest = read_manifest(top / 'manifest.parquet')\n"
        "print(f'  manifest read: peak memory {peak():.0f} MB, {imports:.0f} MB of it imports', flush=True)\n"
        "begun, before = time.perf_counter(), peak()\n"
        "folders = [CorpusFolder(path) for path in sorted(top.glob('view-*'))]\n"
        "for folder in folders: folder.clean(print)\n"
        "missing = [folder.missing(manifest) for folder in folders]\n"
        "plans = plan_shards(manifest, missing, [folder.free_numbers() for folder in folders], 1024)\n"
        "seconds = time.perf_counter() - begun\n"
        "print(f'  {len(plans)} shards planned in {seconds:.1f} s: +{peak() - before:.0f} MB', flush=True)\n"
        "begun, done = time.perf_counter(), manifest.slice(0, len(manifest) - max(map(len, missing)))\n"
        "indexes = [folder.write_index(done) for folder in folders]\n"
        "print(f'  {len(indexes)} indexes written in {time.perf_counter() - begun:.1f} s: peak memory {peak():.0f} MB')"
    )
    subprocess.run([sys.executable, "-c", script, folder], env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=True)


def _sidecars(folders: list[CorpusFolder], number: int, images: pa.Table) -> None:
    """Write one shard's sidecar in every folder, beside a file of holes in the place of the shard."""
    digests = np.random.default_rng(number).bytes(32 * len(images)).hex()
    facts = {
        "sha256": [digests[64 * i : 64 * i + 64] for i in range(len(images))],
        "format": ["JPEG"] * len(images),
        "width": [1024] * len(images),
        "height": [768] * len(images),
        "mode": ["RGB"] * len(images),
        "jpeg_quality": [95] * len(images),
        "status": ["ok"] * len(images),
        "error": [None] * len(images),
        "row": range(len(images)),
    }
    columns = [images[f.name] if f.name in IDENTITY else pa.array(facts[f.name], f.type) for f in SIDECAR_SCHEMA]
    rows = pa.table(columns, schema=SIDECAR_SCHEMA)
    for folder in folders:
        folder.directory.mkdir(exist_ok=True)
        shard = folder.directory / f"shard-{number:05d}.h5"
        with shard.open("wb") as file:
            file.truncate(50 << 20)
        remember_sound(f"{number:064x}", shard.stat())
        record = ShardRecord(shard.name, 50 << 20, f"{number:064x}", len(images))
        write_sidecar(shard.with_suffix(SIDECAR), rows, record, folder.spec)


def big_index(rows: int) -> tuple[pa.Table, tuple[ShardRecord, ...]]:
    """Return an index of 20 sets that share their real images, in shards of 1,024, and its shards."""
    numbers, digests = np.arange(rows), np.random.default_rng(0).bytes(32 * rows).hex()
    failed = numbers % 100 == 99
    columns = {
        "path": [f"test/set-{i % 20}/1_fake/{i:07d}.png" for i in range(rows)],
        "label": numbers % 2,
        "generator": [f"set-{i % 20}" if i % 2 else None for i in range(rows)],
        "split": ["test"] * rows,
        "sets": [[f"set-{i % 20}"] if i % 2 else [f"set-{j}" for j in range(1, 20, 2)] for i in range(rows)],
        "size_bytes": numbers,
        "mtime_ns": numbers,
        "sha256": [digests[64 * i : 64 * i + 64] for i in range(rows)],
        "format": ["PNG"] * rows,
        "status": np.where(failed, "failed", "ok"),
        "shard": [f"shard-{i // 1024:05d}.h5" for i in range(rows)],
        "row": pa.array(numbers % 1024, mask=failed),
    }
    empty = pa.nulls(rows)
    arrays = [pa.array(columns.get(field.name, empty)).cast(field.type) for field in INDEX_SCHEMA]
    records = tuple(
        ShardRecord(f"shard-{shard:05d}.h5", 50 << 20, f"{shard:064x}", min(1024, rows - shard * 1024))
        for shard in range(-(-rows // 1024))
    )
    return pa.table(arrays, schema=INDEX_SCHEMA), records


if __name__ == "__main__":
    main()
