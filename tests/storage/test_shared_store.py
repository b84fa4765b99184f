"""Two projects with one store and one name for their corpora: nothing that one does touches what the other has."""

import hashlib
import shutil
import signal
from pathlib import Path

import yaml
from PIL import Image

from running import demo_params, invoke, start_held, wait_for
from storage.index import INDEX_NAME, read_index
from storage.store import stored_corpora, training_folder

EXTRACT = ("extract", "--corpus", "toy", "--shard-size", "10", "--loaders", "0")
VIEW = Path("data/features/toy/clean")
IMAGES = 20


def run(*arguments):
    return invoke(*arguments, catch_exceptions=False).output


def make_project(folder, level):
    for number in range(IMAGES):
        path = folder / "images" / ("real" if number % 2 else "fake") / f"{number:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (level, 10 * number, 200 * (number % 2))).save(path)
    params = demo_params()
    params["corpora"] |= {"toy": {"root": "images"}}
    params |= {"train_on": ["toy"], "heads": {"linear": {"type": "linear", "block": "last"}}}
    params["extract"] = {"backbone": "demo-vit", "taps": ["cls"], "blocks": [22, 23]}
    params["train"] |= {"epochs": 1, "validation_share": 0.5}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def killed(store):
    """A real SIGKILL in mid-extraction: one shard of two is finished."""
    run("scan", "--corpus", "toy")
    before = set(store.glob("*/*/shard-00000.rows"))
    process = start_held("stages.extract.encode:_Encoder:_run", 1, *EXTRACT, cwd=Path.cwd())
    while set(store.glob("*/*/shard-00000.rows")) == before:
        wait_for(process, store, "*")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not VIEW.exists()


def extracted(_store):
    assert f"{IMAGES} images usable, {IMAGES - 10} extracted now" in run(*EXTRACT)


def repaired(_store):
    harmed = VIEW / "shard-00001.h5"
    harmed.chmod(0o644)
    harmed.write_bytes(b"damaged")  # in place: also the store's, through the link
    assert "10 images extracted again" in run("verify", "--corpus", "toy", "--repair")


def trained(_store):
    run("train", "--trained-on", "toy", "--head", "linear", "--seed", "0")
    training_folder().mkdir(parents=True, exist_ok=True)
    (training_folder() / "stopped.safetensors").write_text("unfinished")


def pruned(_store):
    run("store", "prune", "--yes")


def of(project, store):
    """Path -> bytes of all files of a project, and of those in the store that belong to it."""
    folders = [project, *(each.directory for each in stored_corpora(store) if each.owner == str(project))]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: path.read_bytes() for path in files}


def test_what_one_project_does_touches_nothing_of_the_other(tmp_path, own_store, monkeypatch):
    projects = [tmp_path / name for name in "ab"]
    for level, project in enumerate(projects):
        make_project(project, 100 * level)
    for step in (killed, pruned, extracted, repaired, trained, pruned):
        projects.reverse()
        for project, other in (projects, projects[::-1]):
            before = of(other, own_store)
            monkeypatch.chdir(project)
            step(own_store)
            assert of(other, own_store) == before
            assert any(path.is_relative_to(own_store) for path in of(project, own_store))
    other, project = projects
    for each in projects:
        monkeypatch.chdir(each)
        assert (training_folder() / "stopped.safetensors").exists()
        rows = read_index(each / VIEW / INDEX_NAME).table
        for path, sha256 in zip(rows["path"].to_pylist(), rows["sha256"].to_pylist(), strict=True):
            assert hashlib.sha256((each / "images" / path).read_bytes()).hexdigest() == sha256
        assert f"{VIEW}: sound" in run("verify", "--corpus", "toy")
    shutil.rmtree(other / "data")  # nothing links to its features any more
    before = of(other, own_store)
    monkeypatch.chdir(project)
    pruned(own_store)
    assert of(other, own_store) == before
