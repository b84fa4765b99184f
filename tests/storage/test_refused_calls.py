"""File systems of clusters and shares that refuse a call: real runs, with the C library's call replaced."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from running import environment

SHIMS = Path(__file__).parents[1] / "data" / "refused-calls"
WITHOUT = [("LINK_ERR", errno.EINVAL), ("FSYNCDIR_ERR", errno.EINVAL), ("MEMFD_ERR", errno.ENOSYS)]
LOCKLESS, UNSYNCED = errno.ENOLCK, errno.EINVAL

# One process for all cases, since importing torch takes seconds: the shims read their variable at each call.
PROGRAM = """
import contextlib, io, json, os, sys
from pipeline.cli import main
def run(variable, error, *arguments):
    os.environ[variable] = error
    out, err = io.StringIO(), io.StringIO()
    sys.argv[1:] = arguments
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    del os.environ[variable]
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}
print(json.dumps([run(*case) for case in json.load(sys.stdin)]))
"""

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(variable, error, command) -> what it did: its exit code, ``out`` and ``err``; and the folder it ran in."""
    folder = tmp_path_factory.mktemp("refused")
    shims = [folder / f"{source.stem}.so" for source in sorted(SHIMS.glob("*.c"))]
    for shim in shims:
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", shim, SHIMS / f"{shim.stem}.c"], check=True)
    (folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "images" / "0.png")
    refused = [("FLOCK_ERR", LOCKLESS), ("FSYNC_ERR", UNSYNCED)]
    cases = [*((*case, "extract") for case in [*WITHOUT, *refused]), ("FLOCK_ERR", LOCKLESS, "doctor")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([(variable, str(error), *command(variable, what)) for variable, error, what in cases]),
        cwd=folder,
        env=environment(folder, LD_PRELOAD=":".join(map(str, reversed(shims))), LTDPIPE_STORE=str(folder / "store")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(cases, json.loads(done.stdout), strict=True)), folder


def command(variable, what):
    # a geometry of its own gives each case a folder of the store that no other case has filled
    geometry = {"LINK_ERR": "crop224-pad", "FSYNCDIR_ERR": "squash256-crop224"}.get(variable, "short224-crop")
    loaders = "1" if variable == "MEMFD_ERR" else "0"
    options = ("--out", variable, "--backbone", "demo-vit", "--taps", "cls", "--geometry", geometry)
    return (what,) if what == "doctor" else (what, "images", *options, "--loaders", loaders)


@pytest.mark.parametrize(("variable", "error"), WITHOUT)
def test_an_extraction_does_without_the_call(runs, variable, error):
    results, folder = runs
    done = results[variable, error, "extract"]
    assert done["code"] == 0, done["err"]
    assert (folder / variable / "clean" / "index.parquet").exists()
    assert ("hard links" in done["err"]) == (variable == "LINK_ERR")


def test_without_locks_extraction_and_doctor_say_the_same(runs):
    results, folder = runs
    done = results["FLOCK_ERR", LOCKLESS, "extract"]
    assert done["code"] == 4
    assert "no file locks" in done["err"].splitlines()[-1]
    assert "Traceback" not in done["err"]
    assert not (folder / "FLOCK_ERR").exists()
    assert "no file locks" in results["FLOCK_ERR", LOCKLESS, "doctor"]["out"]


def test_where_files_cannot_be_brought_to_the_disk_nothing_is_called_done(runs):
    results, folder = runs
    done = results["FSYNC_ERR", UNSYNCED, "extract"]
    assert done["code"] == 4
    assert "refuses what a safe write needs" in done["err"].splitlines()[-1]
    assert "Traceback" not in done["err"]
    assert not (folder / "FSYNC_ERR").exists()
