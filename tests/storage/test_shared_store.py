"""Two projects with one store and one name for their corpora: nothing that one does touches what the other has."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from pipeline.commands.data import extract, scan
from pipeline.commands.store import store, verify
from running import PROJECT
from stages.train.checkpoint import Checkpoint
from storage.store import training_folder


def run(command, *arguments):
    return CliRunner().invoke(command, arguments, catch_exceptions=False).output


def make_project(folder, level):
    (folder / "images" / "fake").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (8, 8), (level, number, 0)).save(folder / "images" / "fake" / f"{number}.bmp")
    params = yaml.safe_load((PROJECT / "profiles" / "demo.yaml").read_text())
    params["corpora"] |= {"toy": {"root": "images"}}
    params["extract"] = {"backbone": "demo-vit", "taps": ["cls"], "blocks": [0, 1]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def extracted():
    run(scan, "--corpus", "toy")
    run(extract, "--corpus", "toy", "--shard-size", "1", "--loaders", "0")


def stopped():
    """Extraction as a kill leaves it: shards, no index, nothing published."""
    extracted()
    for path in Path("data").rglob("*"):
        if path.is_file():
            path.unlink()


def repaired():
    extracted()
    shard = next(Path("data/features/toy/clean").glob("*.h5"))
    shard.chmod(0o644)
    shard.write_bytes(b"damaged")
    run(verify, "--corpus", "toy", "--repair")


def trained():
    training_folder().mkdir(parents=True, exist_ok=True)
    state = training_folder() / "head.safetensors"
    state.write_text("unfinished")
    Checkpoint(state, print).remove()


def pruned():
    run(store, "prune", "--yes")


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("first", "second"), [*itertools.product((extracted, stopped, repaired, trained, pruned), repeat=2)]
)
def test_what_one_project_does_touches_nothing_of_the_other(tmp_path, own_store, monkeypatch, first, second):
    for level, name in enumerate(("a", "b")):
        make_project(tmp_path / name, 100 * level)
    monkeypatch.chdir(tmp_path / "a")
    first()
    before = content(own_store) | content(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "b")
    second()
    if second is not pruned:
        pruned()
    after = content(own_store) | content(tmp_path / "a")
    assert {path: after.get(path) for path in before} == before
