"""The shard folder: what its users may count on, on each kind of store."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from faults import harm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import SPEC, extract, features, manifest, names, spec

from running import PROJECT, without_root_s_privilege
from storage.corpus_folder import OWNER_NAME, CorpusFolder, link
from storage.errors import DataError, ResourceError
from storage.features import FeatureTable
from storage.index import INDEX_NAME
from storage.locks import locked
from storage.store import store_root

pytestmark = pytest.mark.usefixtures("own_store")
TABLE = manifest(names(10))


def content(folder):
    """Name -> bytes of all files but the lock and the note of the owner."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in {".lock", OWNER_NAME}}


def logical(directory):
    """Path -> features: what a corpus holds, whatever shards it lies in."""
    table = FeatureTable.open(directory)
    return dict(zip(table.index["path"].to_pylist(), map(bytes, table.read()), strict=True))


class StoreContract:
    """Growing, repairing and publishing; a subclass says where the store lies."""

    @pytest.fixture
    def store(self):
        raise NotImplementedError

    @pytest.fixture
    def out(self, tmp_path):
        return tmp_path / "features" / "toy" / "clean"

    def test_the_same_images_give_the_same_files(self, store, out, tmp_path):
        extract(store / "a", TABLE, out=out, broken={"fake/003.png"})
        extract(store / "b", TABLE, out=tmp_path / "again", broken={"fake/003.png"})
        assert content(out) == content(tmp_path / "again")

    def test_a_second_run_makes_nothing(self, store, out):
        extract(store, TABLE, out=out)
        before = content(out)
        assert extract(store, TABLE, out=out)[1] == []
        assert content(out) == before

    def test_new_images_go_to_new_shards_and_old_ones_are_not_made_again(self, store, out):
        extract(store, manifest(names(6)), out=out)
        old = {name: data for name, data in content(out).items() if name != INDEX_NAME}
        assert extract(store, TABLE, out=out)[1] == names(10)[6:]
        assert old.items() <= content(out).items()
        assert len(FeatureTable.open(out)) == 10

    def test_removed_images_leave_the_index(self, store, out):
        extract(store, TABLE, out=out)
        assert extract(store, manifest(names(10)[5:]), out=out)[1] == []
        assert FeatureTable.open(out).index["path"].to_pylist() == names(10)[5:]
        assert not (out / "shard-00000.h5").exists()  # no image of it is left

    @pytest.mark.parametrize("column", ["size_bytes", "mtime_ns"])
    def test_changed_images_are_made_again(self, store, out, column):
        extract(store, TABLE, out=out)
        at = TABLE.schema.get_field_index(column)
        values = TABLE[column].to_pylist()
        values[4] += 1
        changed = TABLE.set_column(at, TABLE.schema.field(at), [values])
        assert extract(store, changed, out=out)[1] == [names(10)[4]]
        assert len(FeatureTable.open(out)) == 10

    def test_any_history_gives_the_same_content(self, store, out, tmp_path):
        for step in (names(10)[3:5], names(10)[::2], names(10)):
            extract(store / "slow", manifest(step), size=2, out=out)
        extract(store / "once", TABLE, out=tmp_path / "once")
        assert logical(out) == logical(tmp_path / "once")

    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            ("shard-00001.h5", "truncated"),
            ("shard-00001.h5", "overwritten"),
            ("shard-00001.h5", "deleted"),
            ("shard-00001.h5", "replaced"),
            ("shard-00001.parquet", "truncated"),
            ("shard-00001.parquet", "overwritten"),
            ("shard-00001.parquet", "deleted"),
            ("shard-00001.parquet", "replaced"),
            (INDEX_NAME, "truncated"),
            (INDEX_NAME, "overwritten"),
            (INDEX_NAME, "deleted"),
        ],
    )
    def test_what_is_damaged_is_made_again_and_nothing_else(self, store, out, name, damage):
        extract(store, TABLE, out=out)
        before, inodes = content(out), {path.name: path.stat().st_ino for path in out.iterdir()}
        folder = store / SPEC.key / "toy"
        harm(folder / name, damage)
        told = []
        made = extract(store, TABLE, out=out, tell=told.append)[1]
        assert made == ([] if name == INDEX_NAME else names(10)[4:8])
        assert content(out) == before
        assert out.joinpath("shard-00000.h5").stat().st_ino == inodes["shard-00000.h5"] or copied(told)
        if made and damage != "deleted":
            assert name.split(".", maxsplit=1)[0] in told[0]

    def test_leftovers_of_a_killed_run_are_removed(self, store, out):
        extract(store, TABLE, out=out)
        folder = store / SPEC.key / "toy"
        (folder / f"shard-00003.h5.{'0' * 32}.partial").write_text("half")
        (folder / "shard-00003.h5").write_text("a shard without sidecar")
        extract(store, TABLE, out=out)
        assert content(folder) == content(out)

    def test_a_corpus_without_a_usable_image_keeps_its_reasons(self, store):
        index, _ = extract(store, TABLE, broken=set(names(10)))
        assert set(index.table["status"].to_pylist()) == {"failed"}
        assert index.shards == ()
        assert extract(store, TABLE)[1] == []

    def test_features_of_other_settings_in_one_folder_are_refused_with_the_setting_s_name(self, store):
        extract(store, TABLE)
        folder = CorpusFolder(store / SPEC.key / "toy", spec(activation="gelu"))
        with pytest.raises(DataError, match="activation: gelu here, quickgelu there"):
            folder.clean(lambda _: None)

    def test_what_a_killed_publication_left_is_refused_until_it_is_done_again(self, store, out):
        index, _ = extract(store, TABLE, out=out)
        before = content(out)
        (out / INDEX_NAME).unlink()  # it goes first and comes last
        (out / "shard-00001.h5").unlink()
        (out / "shard-00002.h5.1.partial").write_text("half")
        with pytest.raises(DataError, match=r"index\.parquet does not exist"):
            FeatureTable.open(out)
        CorpusFolder(store / SPEC.key / "toy").publish(out, index.shards, lambda _: None)
        assert content(out) == before


@pytest.mark.parametrize("done", range(7))
def test_a_publication_stopped_at_any_point_shows_no_index(own_store, tmp_path, monkeypatch, done):
    extract(own_store, manifest(names(6)), out=tmp_path / "out")
    calls = iter(range(done + 1))

    def stopped(source, target):
        if next(calls) == done:
            raise KeyboardInterrupt
        return link(source, target)

    monkeypatch.setattr("storage.corpus_folder.link", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(own_store, TABLE, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"index\.parquet does not exist"):
        FeatureTable.open(tmp_path / "out")


def copied(told):
    return any("copied" in line for line in told)


class TestStoreOnTheSameFileSystem(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return tmp_path / "elsewhere"

    def test_published_shards_are_the_store_s_own_files(self, store, out):
        told = []
        extract(store, TABLE, out=out, tell=told.append)
        assert all(path.stat().st_nlink == 2 for path in out.iterdir())
        assert told == []


class TestStoreOnAnotherFileSystem(StoreContract):
    @pytest.fixture
    def store(self, other_file_system, tmp_path):
        return other_file_system / tmp_path.name

    def test_published_shards_are_copies_and_the_log_says_so(self, store, out):
        told = []
        extract(store, TABLE, out=out, tell=told.append)
        assert all(path.stat().st_nlink == 1 for path in out.iterdir())
        assert len(told) == 1
        assert "copied 7 files" in told[0]


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
        "A/1.png", r"a/caf\xe9.png", "a/na\u00efve.png", "a/nai\u0308ve.png",
    ]  # fmt: skip
    extract(own_store, manifest(paths), size=3, out=tmp_path / "out")
    table = FeatureTable.open(tmp_path / "out")
    assert table.index["path"].to_pylist() == sorted(paths, key=str.encode)
    assert np.array_equal(table.read("embedding"), features(sorted(paths, key=str.encode))["embedding"])


def test_paths_and_sizes_that_run_together_are_different_images(own_store):
    extract(own_store, manifest(["x1"], size_bytes=23))
    assert extract(own_store, manifest(["x12"], size_bytes=3))[1] == ["x12"]


def test_a_damaged_shard_that_nobody_needs_any_more_leaves_nothing(own_store, tmp_path):
    extract(own_store, TABLE)
    folder = own_store / SPEC.key / "toy"
    harm(folder / "shard-00002.h5", "truncated")
    told = []
    extract(own_store, manifest(names(8)), out=tmp_path / "out", tell=told.append)
    assert [line for line in told if "shard-00002" in line]
    assert content(folder) == content(tmp_path / "out")


def test_an_index_lists_its_shards_in_order(own_store):
    index, _ = extract(own_store, TABLE, size=1)
    assert [record.name for record in index.shards] == [f"shard-{number:05d}.h5" for number in range(10)]


def test_an_index_with_a_gap_is_never_written(own_store):
    folder = CorpusFolder(own_store / SPEC.key / "toy", SPEC)
    with folder.lock(lambda _: None):
        folder.clean(lambda _: None)
        with pytest.raises(DataError, match="lacks 10 of 10 images of 'toy'"):
            folder.write_index(TABLE)
    assert not (own_store / SPEC.key / "toy" / INDEX_NAME).exists()


def test_files_of_another_origin_are_never_removed(own_store, tmp_path):
    for name in ("holiday.jpg", "shard-00000.h5.backup", "my-shard-1.h5"):
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        (out / name).write_text("precious")
        with pytest.raises(DataError, match=f"{re.escape(name)}.*choose an empty folder"):
            extract(own_store, TABLE, out=out)
        assert (out / name).read_text() == "precious"


def test_two_writers_take_turns_and_the_second_finds_all_done(own_store, tmp_path):
    script = (
        "import sys; sys.path += ['tests', 'tests/storage']; from pathlib import Path; import synthetic\n"
        "told = []\n"
        "made = synthetic.extract(Path(sys.argv[1]), synthetic.manifest(synthetic.names(300)), size=5,"
        " out=Path(sys.argv[2]), tell=told.append)[1]\n"
        "print(len(made), told)"
    )
    command = [sys.executable, "-c", script, own_store, tmp_path / "out"]
    writers = [subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(writer.communicate()[0] for writer in writers)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert said[0].startswith("0 ")
    assert said[1].startswith("300 ")
    assert len(FeatureTable.open(tmp_path / "out")) == 300


@pytest.fixture
def held(own_store):
    """A folder whose lock another process holds, and that process."""
    folder = CorpusFolder(own_store / "key" / "toy", SPEC)
    script = (
        "import sys; from pathlib import Path; from storage.corpus_folder import CorpusFolder\n"
        "with CorpusFolder(Path(sys.argv[1]), None).lock(lambda _: None): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, folder.directory], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    yield folder, holder
    holder.kill()
    holder.communicate()


def test_a_waiting_writer_says_for_whom_and_goes_on_when_that_one_is_killed(held):
    folder, holder = held
    told = []

    def wait(line):
        told.append(line)
        holder.kill()  # the kernel frees the lock of a killed process

    with folder.lock(wait):
        assert told == [f"waiting for process {holder.pid}, which extracts into {folder.directory}"]


def test_a_folder_pruned_while_a_writer_waits_is_locked_anew(held):
    folder, holder = held

    def wait(_):
        shutil.rmtree(folder.directory)
        holder.kill()

    with folder.lock(wait):
        assert (folder.directory / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize("what", ["store", "out"])
def test_a_read_only_place_is_explained_and_the_shards_are_kept(tmp_path, what):
    (tmp_path / "read-only").mkdir(mode=0o555)
    store = tmp_path / ("read-only" if what == "store" else "free")
    out = tmp_path / ("read-only" if what == "out" else "free") / "out"
    done = without_root_s_privilege(
        "import sys; sys.path += ['tests', 'tests/storage']; from pathlib import Path; import synthetic\n"
        "from storage.errors import ResourceError\n"
        "try: synthetic.extract(Path(sys.argv[1]), synthetic.manifest(synthetic.names(10)), out=Path(sys.argv[2]))\n"
        "except ResourceError as error: print(error)",
        store, out,
    )  # fmt: skip
    assert f"cannot write {tmp_path / 'read-only'}" in done.stdout, done.stderr
    assert "permission denied" in done.stdout
    if what == "out":
        assert extract(store, TABLE, out=tmp_path / "other")[1] == []


def test_the_store_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("LTDPIPE_STORE", "/somewhere")
    assert store_root() == Path("/somewhere")
    monkeypatch.delenv("LTDPIPE_STORE")
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert store_root() == Path("/project/.ltdpipe/store")
    monkeypatch.delenv("DVC_ROOT")
    assert store_root() == Path(".ltdpipe/store")


def test_sidecars_hold_what_the_index_needs_but_the_manifest(own_store):
    extract(own_store, TABLE)
    sidecar = pq.read_table(own_store / SPEC.key / "toy" / "shard-00000.parquet")
    assert sidecar.column_names[:3] == ["path", "size_bytes", "mtime_ns"]
    assert "label" not in sidecar.column_names


def test_a_lock_that_there_is_no_room_to_write_to_is_explained(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"cannot write .*\.lock: "), locked(tmp_path, print):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
