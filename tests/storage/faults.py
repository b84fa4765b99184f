"""Real faults: a disk that is full, a folder that may not be written to, processes that are killed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from running import PROJECT

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


@contextmanager
def small_disk(folder: Path, size: str):
    """Mount a file system of ``size`` in memory; where that is not allowed, the test cannot run and says so."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def without_root_s_privilege(script: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script that obeys file permissions, also where the tests run as root."""

    def drop() -> None:
        if os.geteuid() == 0:
            ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)

    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=PROJECT, env={**os.environ, **env},
        capture_output=True, text=True, check=False, preexec_fn=drop,
    )  # fmt: skip
