"""status, verify and store, on a project whose features are made up."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from faults import harm
from PIL import Image
from synthetic import SPEC, extract, manifest, names, spec

from pipeline.commands.data import extract as extract_command
from pipeline.commands.store import status, store, verify
from running import demo_params
from stages.scan.run import run as scan
from storage import unfinished
from storage.corpus_folder import CorpusFolder
from storage.errors import DataError
from storage.index import INDEX_NAME, SIDECAR_SCHEMA, read_index, sidecar_of
from storage.manifest import write_manifest
from storage.store import training_folder

TABLE = manifest(names(10))
VIEW = Path("data/features/toy/clean")


@pytest.fixture
def project(tmp_path, monkeypatch, own_store):
    """A project folder with one corpus, extracted and published; its manifest in place."""
    monkeypatch.chdir(tmp_path)
    params = demo_params()
    params["corpora"] |= {"toy": {"root": "images"}, "new": {"root": "images"}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    write_manifest(TABLE, Path("corpora/toy.parquet"))
    extract(own_store, TABLE, out=VIEW, broken={"fake/003.png"})
    return own_store


def run(command, *arguments):
    """What a command prints; its errors are raised."""
    return CliRunner().invoke(command, arguments, catch_exceptions=False).output


def test_status_counts_done_failed_and_missing(project):
    write_manifest(manifest(names(13)), Path("corpora/toy.parquet"))
    said = run(status)
    assert "toy: 13 images in the manifest" in said
    assert f"store {SPEC.key[:8]}: 9 done, 1 failed, 3 missing" in said
    assert "s left at" in said
    assert "not running" in said
    assert f"{VIEW}: 9 done, 1 failed, key {SPEC.key[:8]}; the manifest has changed since" in said
    assert "new: no manifest yet; `ltdpipe scan --corpus new` makes it" in said


def test_status_says_what_a_stopped_run_has_kept_of_unfinished_shards(project):
    write_manifest(manifest(names(16)), Path("corpora/toy.parquet"))
    folder = CorpusFolder(project / SPEC.key / "toy", SPEC)
    done = read_index(VIEW / INDEX_NAME).table.select(SIDECAR_SCHEMA.names).to_pylist()
    rows = [row | {"row": None} for row in done[:3]]
    unfinished.keep(folder, 7, {}, rows[:1])
    shorter = sidecar_of(folder.directory / "unfinished-00007-000001.h5")
    sidecar = shorter.read_bytes()
    unfinished.keep(folder, 7, {}, rows)
    shorter.write_bytes(sidecar)  # as a kill before its removal leaves it
    unfinished.keep(folder, 8, {}, rows[:2])
    assert "6 missing (5 kept in unfinished shards)" in run(status, "--corpus", "toy")


def test_status_names_the_process_at_work_damaged_files_and_touched_images(project):
    times = [8 if at == 0 else 7 for at in range(11)]
    table = manifest(names(11))
    column = table.column_names.index("mtime_ns")
    write_manifest(table.set_column(column, table.schema.field("mtime_ns"), [times]), Path("corpora/toy.parquet"))
    assert "8 done, 1 failed, 1 missing, 1 touched since" in run(status, "--corpus", "toy")
    (project / SPEC.key / "toy" / "shard-00001.h5").unlink()
    with CorpusFolder(project / SPEC.key / "toy", SPEC).lock(lambda _: None):
        said = run(status, "--corpus", "toy")
    assert f"process {os.getpid()} is at work" in said
    assert "4 done, 1 failed, 5 missing, 1 touched since (another size or time), to be made again, damaged: " in said
    assert "damaged: shard-00001.h5" in said
    assert "new" not in said


@pytest.mark.parametrize(
    ("name", "where", "again"),
    [
        ("shard-00001.h5", ["--corpus", "toy"], "ltdpipe verify"),
        (INDEX_NAME, ["--corpus", "toy"], "ltdpipe verify"),
        ("shard-00001.rows", [str(VIEW)], f"ltdpipe verify {VIEW}"),
    ],
)
def test_verify_names_what_is_damaged_and_repair_restores_it_from_the_store(project, name, where, again):
    before = (VIEW / name).read_bytes()
    harm(VIEW / name, "overwritten")
    with pytest.raises(DataError, match=f"1 files are damaged; `{again} --repair`"):
        run(verify, *where)
    said = run(verify, *where, "--repair")
    assert f"{VIEW / name}: restored" in said
    assert (VIEW / name).read_bytes() == before
    assert f"{VIEW}: sound" in run(verify)


def test_repair_extracts_again_what_has_no_sound_copy_and_nothing_else(project):
    """Damage went through the hard links into store and DVC cache; the cache's copy must not come back."""
    Path("images/fake").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(f"images/fake/{number}.png")
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["extract"] = {"backbone": "demo-vit", "taps": ["cls"], "blocks": [0, 1]}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    table, _ = scan(corpus="new", root=Path("images"), layout="folder")
    write_manifest(table, Path("corpora/new.parquet"))
    run(extract_command, "--corpus", "new", "--shard-size", "2", "--loaders", "0")
    view = Path("data/features/new/clean")
    cached = Path(".dvc/cache/files/md5/ab/cdef")
    cached.parent.mkdir(parents=True)
    cached.hardlink_to(view / "shard-00001.h5")
    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in view.glob("shard-*")}
    harm(view / "shard-00001.h5", "overwritten", in_place=True)
    with pytest.raises(DataError, match="1 files are damaged"):
        run(verify, "--corpus", "new")
    said = run(verify, "--corpus", "new", "--repair")
    assert "shard-00001.h5: no sound copy, removed" in said
    assert "2 images extracted again" in said
    assert not cached.exists()
    for name, (content, inode) in before.items():
        assert (view / name).read_bytes() == content
        if "shard-00001" not in name:  # the new file may get the number that the removed one had
            assert (view / name).stat().st_ino == inode


def test_prune_deletes_what_nobody_needs_and_says_what_it_frees(project):
    old = spec(precision="fp16")
    extract(project, TABLE, corpus="toy", spec=old)
    size = sum(path.stat().st_size for path in (project / old.key / "toy").iterdir())
    assert "would delete" in run(store, "prune")
    assert (project / old.key).is_dir()
    said = run(store, "prune", "--yes")
    assert f"deleted {old.key}/toy" in said
    assert f"kept {SPEC.key}/toy" in said
    assert f"{size / 1000:.1f} kB freed" in said
    assert not (project / old.key).exists()
    assert f"{VIEW}: sound" in run(verify)


def test_prune_deletes_states_of_trainings_that_were_given_up_and_no_others(project):
    old, new = (training_folder() / f"{name}.safetensors" for name in ("old", "new"))
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"x" * 2000)
    os.utime(old, (10**9, 10**9))
    assert "2.0 kB would be freed" in run(store, "prune")
    assert old.exists()
    said = run(store, "prune", "--yes")
    assert f"deleted {old}: 2.0 kB" in said
    assert "2.0 kB freed" in said
    assert (old.exists(), new.exists()) == (False, True)
