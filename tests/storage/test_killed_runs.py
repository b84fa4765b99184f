"""Runs that are stopped: a killed process leaves finished shards, and the same command makes only what is missing."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults import small_disk
from PIL import Image
from synthetic import SPEC, extract, manifest, names

from running import PROJECT, run_command, start_held, wait_for, wait_until_held
from storage.errors import ResourceError
from storage.features import FeatureTable
from storage.published import faults

# The loop of the extraction stage with made-up features: it starts in a fraction of a second.
FAST = (
    "import sys; sys.path += ['tests', 'tests/storage']; from pathlib import Path; import synthetic\n"
    "synthetic.extract(Path(sys.argv[1]), synthetic.manifest(synthetic.names(400)), size=5, out=Path(sys.argv[2]),"
    " broken={'fake/007.png'})"
)


def files(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def start_fast(store, out):
    return subprocess.Popen([sys.executable, "-c", FAST, store, out], cwd=PROJECT, stderr=subprocess.DEVNULL)


def test_a_run_killed_again_and_again_ends_with_the_files_of_an_undisturbed_one(tmp_path):
    assert start_fast(tmp_path / "calm", tmp_path / "calm-out").wait() == 0
    folder = tmp_path / "store" / SPEC.key / "toy"
    kills, finished, chance = 0, 0, random.Random(4)
    while kills < 4:
        before = {path.name: path.stat().st_ino for path in folder.glob("shard-*")}
        process = start_fast(tmp_path / "store", tmp_path / "out")
        while process.poll() is None and len(list(folder.glob("shard-*"))) == len(before):
            time.sleep(0.001)  # it has started when it has written
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        if process.wait() == 0:  # it was done before the signal came: begin anew
            finished += 1
            assert files(tmp_path / "out") == files(tmp_path / "calm-out")
            for path in [*folder.iterdir(), *(tmp_path / "out").iterdir()]:
                path.unlink()
        else:
            assert process.returncode == -signal.SIGKILL
            kills += 1
            kept = {path.name: path.stat().st_ino for path in folder.glob("shard-*.h5")}
            done = {name: inode for name, inode in before.items() if f"{Path(name).stem}.rows" in before}
            assert {name: inode for name, inode in done.items() if name.endswith(".h5")}.items() <= kept.items()
    assert start_fast(tmp_path / "store", tmp_path / "out").wait() == 0
    assert files(tmp_path / "out") == files(tmp_path / "calm-out")
    assert faults(tmp_path / "out") == {}
    assert not list(folder.glob("*.partial"))


def test_a_disk_that_fills_up_keeps_finished_shards_and_goes_on_when_there_is_room(tmp_path, own_store):
    table = manifest(names(60))
    with small_disk(tmp_path / "disk", "152k") as disk:
        with pytest.raises(ResourceError, match=r"cannot write .*shard-.*the disk is full.*same command again"):
            extract(disk, table, out=tmp_path / "out")
        folder = disk / SPEC.key / "toy"
        kept = {path.name: path.stat().st_ino for path in folder.glob("shard-*.h5")}
        assert len(kept) > 2
        assert not list(folder.glob("*.partial"))
        assert not (tmp_path / "out").exists()
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        _, made = extract(disk, table, out=tmp_path / "out")
        assert 0 < len(made) <= 60 - 4 * (len(kept) - 1)  # the last one may have lacked its sidecar
        assert len(FeatureTable.open(tmp_path / "out")) == 60


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for kind in ("real", "fake"):
        (folder / kind).mkdir()
        for number in range(100):
            Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / kind / f"{number}.png")
    return folder


def command(pictures, out):
    options = ["--out", out, "--backbone", "demo-vit", "--taps", "cls", "--blocks", "0,1"]
    options += ["--shard-size", "50", "--loaders", "0"]
    return ["extract", str(pictures), *map(str, options)]


def start_on_two_shards(pictures, folder):
    """Start the real command on four shards of two batches, of which it makes three, and wait for the first shard."""
    place, options = "stages.extract.encode:_Encoder:_run", command(pictures, folder / "out")
    process = start_held(place, 3, *options, cwd=PROJECT, LTDPIPE_STORE=str(folder / "store"))
    wait_for(process, folder, "store/*/*/shard-00000.rows")
    return process


def go_on(pictures, folder):
    options = command(pictures, folder / "out")
    return run_command("ltdpipe", *options, cwd=PROJECT, LTDPIPE_STORE=str(folder / "store"))


@pytest.fixture(scope="module")
def calm(pictures, tmp_path_factory):
    """The features of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    go_on(pictures, folder)
    return folder / "out" / "clean"


def test_the_command_killed_after_its_first_shard_goes_on_and_redoes_none(pictures, tmp_path, calm):
    process = start_on_two_shards(pictures, tmp_path)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "store").glob("*/pictures*")
    finished = {path.name: path.stat().st_ino for path in folder.glob("shard-*.h5")
                if path.with_suffix(".rows").exists()}  # fmt: skip
    assert 1 <= len(finished) <= 2
    # the header of a file cut in mid-write claims more than there is
    (folder / "shard-00003.h5").write_bytes((folder / "shard-00000.h5").read_bytes()[:3000])
    go_on(pictures, tmp_path)
    assert finished.items() <= {path.name: path.stat().st_ino for path in folder.glob("shard-*.h5")}.items()
    assert files(tmp_path / "out" / "clean") == files(calm)


def test_an_interrupted_command_says_what_it_keeps_and_how_to_go_on(pictures, tmp_path, calm):
    process = start_on_two_shards(pictures, tmp_path)
    wait_until_held(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    last = said.strip().splitlines()[-1]
    assert "to resume, run: ltdpipe extract" in last
    assert "kept 32 images of an unfinished shard" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / "out").exists()
    go_on(pictures, tmp_path)
    assert files(tmp_path / "out" / "clean") == files(calm)
    assert not list(tmp_path.rglob("unfinished-*"))
