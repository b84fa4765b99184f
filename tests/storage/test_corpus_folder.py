"""A folder of features: what grows, is damaged, is repaired and is published, on each kind of store."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults import harm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import SPEC, extract, features, manifest, names, spec

from running import PROJECT
from storage.atomic import link
from storage.corpus_folder import OWNER_NAME, CorpusFolder
from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import INDEX_NAME, write_contents

pytestmark = pytest.mark.usefixtures("own_store")
TABLE = manifest(names(10))


def content(folder):
    """Name -> bytes of all files but the lock and the note of the owner."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in {".lock", OWNER_NAME}}


def logical(directory):
    """Path -> features: what a corpus holds, whatever shards it lies in."""
    table = FeatureTable.open(directory)
    return dict(zip(table.index["path"].to_pylist(), map(bytes, table.read()), strict=True))


class FolderContract:
    """Growing, repairing and publishing; a subclass says where the store lies."""

    @pytest.fixture
    def store(self):
        raise NotImplementedError

    @pytest.fixture
    def out(self, tmp_path):
        return tmp_path / "features" / "toy" / "clean"

    def test_the_same_images_give_the_same_files_and_a_second_run_makes_none(self, store, out, tmp_path):
        extract(store / "a", TABLE, out=out, broken={"fake/003.png"})
        extract(store / "b", TABLE, out=tmp_path / "again", broken={"fake/003.png"})
        assert extract(store / "a", TABLE, out=out, broken={"fake/003.png"})[1] == []
        assert content(out) == content(tmp_path / "again")

    def test_images_come_and_go_and_only_new_ones_are_made(self, store, out):
        extract(store, manifest(names(6)), out=out)
        old = {name: data for name, data in content(out).items() if name != INDEX_NAME}
        assert extract(store, TABLE, out=out)[1] == names(10)[6:]
        assert old.items() <= content(out).items()
        assert len(FeatureTable.open(out)) == 10
        assert extract(store, manifest(names(10)[5:]), out=out)[1] == []
        assert FeatureTable.open(out).index["path"].to_pylist() == names(10)[5:]
        assert not (out / "shard-00000.h5").exists()  # no image of it is left

    @pytest.mark.parametrize("column", ["size_bytes", "mtime_ns"])
    def test_changed_images_are_made_again(self, store, out, column):
        extract(store, TABLE, out=out)
        values = TABLE[column].to_pylist()
        values[4] += 1
        changed = TABLE.set_column(TABLE.column_names.index(column), TABLE.schema.field(column), [values])
        assert extract(store, changed, out=out)[1] == [names(10)[4]]
        assert len(FeatureTable.open(out)) == 10

    @pytest.mark.parametrize("damage", ["truncated", "overwritten", "deleted", "replaced"])
    @pytest.mark.parametrize("name", ["shard-00001.h5", "shard-00001.rows", INDEX_NAME])
    def test_what_is_damaged_is_made_again_and_nothing_else(self, store, out, name, damage):
        if (name, damage) == (INDEX_NAME, "replaced"):
            damage = "emptied"
        extract(store, TABLE, out=out)
        before, inode = content(out), (out / "shard-00000.h5").stat().st_ino
        harm(store / SPEC.key / "toy" / name, damage)
        told = []
        made = extract(store, TABLE, out=out, tell=told.append)[1]
        assert made == ([] if name == INDEX_NAME else names(10)[4:8])
        assert content(out) == before
        assert (out / "shard-00000.h5").stat().st_ino == inode or any("copied" in line for line in told)
        if made and damage != "deleted":
            assert "shard-00001" in told[0]
            assert "its images will be extracted again" in told[0]

    def test_what_a_killed_run_left_is_removed_or_refused_until_it_is_done(self, store, out):
        extract(store, TABLE, out=out)
        before, folder = content(out), store / SPEC.key / "toy"
        (folder / f"shard-00003.h5.{'0' * 32}.partial").write_text("half")
        (folder / "shard-00003.h5").write_text("a shard without sidecar")
        (out / INDEX_NAME).unlink()  # a publication removes it first and brings it last
        (out / "shard-00001.h5").unlink()
        (out / "shard-00002.h5.1.partial").write_text("half")
        with pytest.raises(DataError, match=r"index\.parquet does not exist"):
            FeatureTable.open(out)
        extract(store, TABLE, out=out)
        assert content(out) == content(folder) == before

    def test_features_of_other_settings_in_one_folder_are_refused_with_the_setting_s_name(self, store):
        extract(store, TABLE)
        with pytest.raises(DataError, match="activation: gelu here, quickgelu there"):
            CorpusFolder(store / SPEC.key / "toy", spec(activation="gelu")).clean(print)


class TestFolderOnTheSameFileSystem(FolderContract):
    @pytest.fixture
    def store(self, tmp_path):
        return tmp_path / "elsewhere"

    def test_published_shards_are_the_store_s_own_files(self, store, out):
        told = []
        extract(store, TABLE, out=out, tell=told.append)
        assert all(path.stat().st_nlink == 2 for path in out.iterdir())
        assert told == []


class TestFolderOnAnotherFileSystem(FolderContract):
    @pytest.fixture
    def store(self, other_file_system, tmp_path):
        return other_file_system / tmp_path.name

    def test_published_shards_are_copies_and_a_line_says_so(self, store, out):
        told = []
        extract(store, TABLE, out=out, tell=told.append)
        assert all(path.stat().st_nlink == 1 for path in out.iterdir())
        (line,) = told
        assert "copied 7 files" in line


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=4), st.integers(1, 5), st.sets(st.integers(0, 9)))
def test_after_any_history_each_image_has_its_own_features(tmp_path_factory, history, size, broken):
    folder = tmp_path_factory.mktemp("history")
    broken = {names(10)[i] for i in broken}
    for step in history:
        paths = sorted(names(10)[i] for i in step)
        index, _ = extract(folder / "store", manifest(paths), size=size, broken=broken, out=folder / "out")
    assert index.table["path"].to_pylist() == paths
    table = FeatureTable.open(folder / "out")
    usable = [path for path in paths if path not in broken]
    assert table.index["path"].to_pylist() == usable
    assert np.array_equal(table.read("embedding"), features(usable)["embedding"])


def test_names_that_nearly_agree_are_different_images(own_store, tmp_path):
    paths = [
        "a/1.png", "b/1.png", "a/1.jpg", "a/1.tar.png", "a/1 .png", "a/two\nlines.png", "a/\U0001f600.png",
        "a/na\u00efve.png", "a/nai\u0308ve.png", "a/A.png", "a/a.png", r"a/\xe9.png", r"a/\\xe9.png",
    ]  # fmt: skip
    extract(own_store, manifest(paths), out=tmp_path / "out")
    assert logical(tmp_path / "out").keys() == set(paths)
    assert len(set(logical(tmp_path / "out").values())) == len(paths)
    extract(own_store, manifest(["x1"], size_bytes=23), corpus="runs together")
    assert extract(own_store, manifest(["x12"], size_bytes=3), corpus="runs together")[1] == ["x12"]


# Publication


@pytest.mark.parametrize("done", [0, 3, 6])
def test_a_publication_stopped_at_any_point_shows_no_index(own_store, tmp_path, monkeypatch, done):
    extract(own_store, manifest(names(6)), out=tmp_path / "out")
    calls = iter(range(done + 1))

    def stopped(source, target):
        if next(calls) == done:
            raise KeyboardInterrupt
        return link(source, target)

    monkeypatch.setattr("storage.published.link", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(own_store, TABLE, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"index\.parquet does not exist"):
        FeatureTable.open(tmp_path / "out")


def test_the_old_index_goes_before_any_shard_and_the_folder_is_synced_last(own_store, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    extract(own_store, TABLE, out=out)
    unlink = Path.unlink

    def noted(path, missing_ok=False):
        if path.parent == out and path.exists():
            done.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    fsync = "storage.published.fsync"
    monkeypatch.setattr(fsync, lambda path: done.append(sorted(file.name for file in path.iterdir())))
    extract(own_store, manifest(names(4)), out=out)
    first, *_, kept = done
    assert first == INDEX_NAME
    assert kept == [INDEX_NAME, "shard-00000.h5", "shard-00000.rows"]


@pytest.mark.parametrize("name", ["holiday.jpg", "shard-00000.h5.backup", "my-shard-1.h5"])
def test_files_of_another_origin_are_never_removed(own_store, tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(DataError, match=f"{re.escape(name)}.*choose an empty folder"):
        extract(own_store, TABLE, out=tmp_path)
    assert (tmp_path / name).read_text() == "precious"


def test_the_fingerprint_changes_with_what_later_stages_read_and_not_with_times(tmp_path, own_store):
    def fingerprint(corpus, **columns):
        extract(own_store, manifest(names(3), **columns), corpus=corpus, out=tmp_path / "features" / "clean")
        write_contents(tmp_path / "features", tmp_path / "contents.json")
        return json.loads((tmp_path / "contents.json").read_text())["clean"]["rows"]

    changes = ({}, {"label": None}, {"generator": "b"}, {"split": "test"}, {"sets": ["b"]}, {"category": "b"})
    assert len({fingerprint("toy", **change) for change in changes}) == len(changes)
    assert fingerprint("touched", mtime_ns=8) == fingerprint("toy")


# Locks


@pytest.fixture
def held(own_store):
    """A folder whose lock another process holds, and that process."""
    folder = CorpusFolder(own_store / "key" / "toy", SPEC)
    script = (
        "import sys; from pathlib import Path; from storage.atomic import locked\n"
        "with locked(Path(sys.argv[1]), print): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, folder.directory], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    yield folder, holder
    holder.kill()
    holder.communicate()


@pytest.mark.parametrize("pruned", [False, True])
def test_a_waiting_writer_says_for_whom_and_goes_on_when_that_one_is_killed(held, pruned):
    folder, holder = held
    told = []

    def wait(line):
        told.append(line)
        if pruned:
            shutil.rmtree(folder.directory)
        holder.kill()  # the kernel frees the lock of a killed process

    with folder.lock(wait):
        assert told == [f"waiting for process {holder.pid}, which extracts into {folder.directory}"]
        assert (folder.directory / ".lock").read_text() == str(os.getpid())
