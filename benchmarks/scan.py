"""Scan 1,000,000 empty image files in 1,000 folders: time, memory and manifest size.

``python -m benchmarks.scan [FOLDER]``: the files are made below FOLDER (default: /dev/shm where it is, else the
temporary folder) and removed. The target is under 60 s and under 1.5 GB. Making them can take longer than scanning.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

FOLDERS, FILES = 1_000, 1_000
DEFAULT = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main() -> None:
    """Make the files, scan them in this process, print the figures."""
    root = Path(tempfile.mkdtemp(prefix="ltdpipe-scan-", dir=sys.argv[1] if len(sys.argv) > 1 else DEFAULT))
    try:
        started = time.perf_counter()
        for number in range(FOLDERS):
            folder = root / f"generator-{number // 2:03d}" / ("0_real" if number % 2 else "1_fake")
            folder.mkdir(parents=True)
            descriptor = os.open(folder, os.O_RDONLY)
            for image in range(FILES):
                os.close(os.open(f"{image:06d}.v1.4.JPG", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
            os.close(descriptor)
        print(f"made {FOLDERS * FILES:,} empty files in {FOLDERS:,} folders: {time.perf_counter() - started:.1f} s")

        from pipeline.console import ConsoleReporter  # noqa: PLC0415 - after the files, so that its memory is scanning's
        from stages.scan.run import run  # noqa: PLC0415

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        table, summary = run(
            corpus="million", root=root, layout="auto", out=root.with_suffix(".parquet"), reporter=ConsoleReporter()
        )
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = root.with_suffix(".parquet").stat().st_size
        print(f"scanned {len(table):,} images, {len(summary.sets)} sets: {seconds:.1f} s (target 60)")
        print(f"peak memory {peak / 2**20:.2f} GB, {before / 2**20:.2f} GB before (target 1.5)")
        print(f"manifest {size / 1e6:.1f} MB")
    finally:
        shutil.rmtree(root)
        root.with_suffix(".parquet").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
