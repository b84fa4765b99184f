from __future__ import annotations

import fcntl
import os
import shutil

import pytest
from faults import harm
from synthetic import SPEC, extract, manifest, names, spec

from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import INDEX_NAME, Index, read_index, read_sidecar, write_index, write_sidecar
from storage.verification import faults, rebuild_index, restore_from_store, store_folder

pytestmark = pytest.mark.usefixtures("own_store")
TABLE = manifest(names(10))


@pytest.fixture
def home(own_store):
    return own_store / SPEC.key / "toy"


@pytest.fixture
def view(tmp_path, own_store):
    extract(own_store, TABLE, out=tmp_path / "view")
    return tmp_path / "view"


ALL = ["shard-00000.h5", "shard-00001.h5", "shard-00002.h5", "shard-00001.parquet", INDEX_NAME]


def test_sound_features_have_no_fault(view, home):
    assert faults(view) == faults(home) == {}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("damage", ["overwritten", "truncated", "deleted"])
def test_each_damaged_file_is_found_by_name_and_restored_from_the_store(view, home, name, damage):
    before = {path.name: path.read_bytes() for path in view.iterdir()}
    harm(view / name, damage)
    found = faults(view)
    assert list(found) == [view / name]
    assert restore_from_store(found, store_folder(view, home.parents[1]), [], print) == {}
    assert faults(view) == {}
    assert {path.name: path.read_bytes() for path in view.iterdir()} == before


def test_nothing_is_restored_from_what_another_folder_of_the_same_name_left_in_the_store(view, home, tmp_path):
    """Two folders called alike share their place in the store; its index is the later one's."""
    extract(home.parents[1], manifest(names(16)[10:]), out=tmp_path / "second")
    harm(view / "shard-00001.h5", "overwritten", in_place=True)  # also the store's, through the link
    found = faults(view)
    assert restore_from_store(found, store_folder(view, home.parents[1]), [], print) == found
    assert not (view / "shard-00001.h5").exists()
    (view / INDEX_NAME).unlink()
    found = {path: fault for path, fault in faults(view).items() if path.name == INDEX_NAME}
    assert restore_from_store(found, home, [], print) == found
    assert not (view / INDEX_NAME).exists()
    assert (home / INDEX_NAME).exists()
    assert faults(tmp_path / "second") == {}


def test_a_sidecar_that_another_folder_of_the_same_name_left_in_the_store_is_not_restored(view, home, tmp_path):
    shutil.rmtree(home)
    extract(home.parents[1], manifest(names(26)[16:]), out=tmp_path / "second")
    harm(view / "shard-00001.parquet", "deleted")
    found = faults(view)
    assert restore_from_store(found, home, [], print) == found
    assert not (view / "shard-00001.parquet").exists()


def test_an_index_of_a_part_of_the_view_s_shards_is_not_restored(view, home, tmp_path):
    extract(home.parents[1], manifest(names(4)), out=tmp_path / "second")  # its first shard is the view's, too
    harm(view / INDEX_NAME, "deleted")
    found = faults(view)
    assert restore_from_store(found, home, [], print) == found
    assert not (view / INDEX_NAME).exists()


def lose_a_bit(shard):
    """Damage a file that keeps inode, size and time: what is remembered of it stays as it was."""
    status = shard.stat()
    harm(shard, "one bit", in_place=True)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_lost_bit_is_found_even_if_size_and_time_are_unchanged(view):
    lose_a_bit(view / "shard-00001.h5")
    FeatureTable.open(view)  # the quick look cannot see it
    assert [path.name for path in faults(view)] == ["shard-00001.h5"]
    (view / INDEX_NAME).unlink()
    assert [path.name for path in faults(view)] == [INDEX_NAME, "shard-00001.h5"]


def test_a_copy_in_the_store_that_lost_a_bit_is_not_restored(view, home):
    lose_a_bit(home / "shard-00001.h5")
    (view / "shard-00001.h5").unlink()
    found = faults(view)
    assert restore_from_store(found, home, [], print) == found
    assert not (view / "shard-00001.h5").exists()
    assert not (home / "shard-00001.h5").exists()


def test_a_sidecar_of_other_settings_is_a_fault(view):
    rows, record, _ = read_sidecar(view / "shard-00001.parquet")
    (view / "shard-00001.parquet").unlink()
    write_sidecar(view / "shard-00001.parquet", rows, record, spec(precision="fp16"))
    assert faults(view) == {view / "shard-00001.parquet": "does not describe the shard that the index lists"}


def test_a_sidecar_of_another_shard_is_a_fault(view):
    harm(view / "shard-00001.parquet", "replaced")
    assert [path.name for path in faults(view)] == ["shard-00001.parquet"]


def test_a_shard_of_other_settings_than_the_index_is_a_fault(view):
    index = read_index(view / INDEX_NAME)
    (view / INDEX_NAME).unlink()
    write_index(view / INDEX_NAME, Index(index.table, spec(precision="fp16"), index.corpus, index.shards))
    found = {path: fault for path, fault in faults(view).items() if path.suffix == ".h5"}
    assert [path.name for path in found] == [record.name for record in index.shards]
    assert "does not fit the index" in next(iter(found.values()))


def test_without_an_index_the_folder_of_the_store_is_the_one_with_the_same_shard(view, home, own_store):
    extract(own_store, manifest(names(30)[10:]), corpus="another")
    (view / INDEX_NAME).unlink()
    assert store_folder(view, own_store) == home
    harm(view / "shard-00000.parquet", "overwritten")
    assert store_folder(view, own_store) == home  # the next sidecar tells


def test_damage_that_went_through_the_link_is_removed_everywhere_and_only_that_shard_is_made_again(
    view, home, own_store, tmp_path
):
    cache = tmp_path / "cache" / "ab"
    cache.mkdir(parents=True)
    before = {path.name: path.read_bytes() for path in view.iterdir()}
    for name in ("shard-00000.h5", "shard-00001.h5"):
        os.link(view / name, cache / name)
    harm(view / "shard-00001.h5", "overwritten", in_place=True)
    found = faults(view)
    assert restore_from_store(found, home, [cache], print) == found
    assert [path.name for path in cache.iterdir()] == ["shard-00000.h5"]
    assert not (home / "shard-00001.h5").exists()
    assert not (view / "shard-00001.h5").exists()
    assert extract(own_store, TABLE, out=view)[1] == names(10)[4:8]
    assert {path.name: path.read_bytes() for path in view.iterdir()} == before


def test_a_lost_index_is_put_together_again_without_extracting(view, home):
    before = (view / INDEX_NAME).read_bytes()
    (view / INDEX_NAME).unlink()
    (home / INDEX_NAME).unlink()
    rebuild_index(view, store_folder(view, home.parents[1]), TABLE, lambda _: None)
    assert (view / INDEX_NAME).read_bytes() == before
    assert faults(view) == {}


def test_an_index_is_not_put_together_from_a_part_of_the_shards(view, home):
    for folder in (view, home):
        (folder / INDEX_NAME).unlink()
        (folder / "shard-00001.h5").unlink()
    with pytest.raises(DataError, match="lacks 4 of 10 images"):
        rebuild_index(view, home, TABLE, lambda _: None)
    shutil.rmtree(home)
    with pytest.raises(DataError, match="lacks 10 of 10 images"):
        rebuild_index(view, home, TABLE, lambda _: None)


def test_damage_beside_a_lost_index_is_found_too(view):
    (view / INDEX_NAME).unlink()
    harm(view / "shard-00001.h5", "overwritten")
    harm(view / "shard-00002.parquet", "overwritten")
    assert [path.name for path in faults(view)] == [INDEX_NAME, "shard-00001.h5", "shard-00002.parquet"]


def test_without_a_store_the_damaged_file_is_removed_and_reported(view, own_store):
    shutil.rmtree(own_store)
    harm(view / "shard-00001.h5", "overwritten")
    found = faults(view)
    assert store_folder(view, own_store) is None
    assert restore_from_store(found, None, [], print) == found
    with pytest.raises(DataError, match=r"shard-00001\.h5 is missing"):
        FeatureTable.open(view)


def test_the_store_is_locked_while_its_files_are_deleted(view, home, tmp_path):
    harm(home / "shard-00001.h5", "overwritten", in_place=True)
    (tmp_path / "cache").mkdir()
    held = []

    class Watching(dict):
        def items(self):
            with (home / ".lock").open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(True)
            return super().items()

    found = Watching(faults(view))
    restore_from_store(found, home, [], print)
    assert held


def test_a_damaged_copy_is_removed_from_the_cache_where_the_store_is_on_another_file_system(view, home, tmp_path):
    shard, cache = view / "shard-00001.h5", tmp_path / "cache"
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content)  # a copy, as across file systems: its only links are the view's and the cache's
    cache.mkdir()
    (cache / "twin").hardlink_to(shard)
    harm(shard, "overwritten", in_place=True)
    assert restore_from_store(faults(view), home, [cache], print) == {}
    assert list(cache.iterdir()) == []
    assert shard.read_bytes() == content


def test_a_dangling_link_in_the_cache_does_not_stop_the_repair(view, home, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "dangling").symlink_to(tmp_path / "gone")
    (cache / "twin").hardlink_to(view / "shard-00001.h5")
    harm(view / "shard-00001.h5", "overwritten", in_place=True)
    restore_from_store(faults(view), home, [cache], print)
    assert sorted(path.name for path in cache.iterdir()) == ["dangling"]
