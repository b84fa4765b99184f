"""File systems of clusters and shares that refuse a call: real runs, with the C library's call replaced."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SHIMS = Path(__file__).parents[1] / "data" / "refused-calls"

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.fixture
def refusing(tmp_path):
    """Run the command in a folder with images, with calls refused."""
    shims = [tmp_path / f"{source.stem}.so" for source in sorted(SHIMS.glob("*.c"))]
    for shim in shims:
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", shim, SHIMS / f"{shim.stem}.c"], check=True)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "0.png")

    def run(variable, error, *arguments):
        environment = os.environ | {"LD_PRELOAD": ":".join(map(str, reversed(shims))), variable: str(error)}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "LTDPIPE_STORE": str(tmp_path / "store")}
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]
        return subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


EXTRACT = ("extract", "images", "--out", "features", "--backbone", "demo-vit", "--taps", "cls", "--loaders", "1")


@pytest.mark.parametrize(
    ("variable", "error"),
    [("LINK_ERR", errno.EINVAL), ("FSYNCDIR_ERR", errno.EINVAL), ("MEMFD_ERR", errno.ENOSYS)],
)
def test_an_extraction_does_without_the_call(refusing, tmp_path, variable, error):
    done = refusing(variable, error, *EXTRACT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "features" / "clean" / "index.parquet").exists()


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_extraction_and_doctor_say_the_same(refusing, error):
    done = refusing("FLOCK_ERR", error, *EXTRACT)
    assert done.returncode == 4
    assert "no file locks" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "no file locks" in refusing("FLOCK_ERR", error, "doctor").stdout
