"""Damage in features is found by name, and undone from the store's good copies; nothing else is touched."""

import os
import shutil

import pytest
from faults import harm
from synthetic import SPEC, extract, manifest, names, spec

from storage.features import FeatureTable
from storage.index import INDEX_NAME, read_index, read_sidecar, write_index, write_sidecar
from storage.published import faults, repair, store_folder

pytestmark = pytest.mark.usefixtures("own_store")
TABLE = manifest(names(10))
NAMES = ["shard-00000.h5", "shard-00002.h5", "shard-00001.rows", INDEX_NAME]


@pytest.fixture
def home(own_store):
    return own_store / SPEC.key / "toy"


@pytest.fixture
def view(tmp_path, own_store):
    extract(own_store, TABLE, out=tmp_path / "view")
    return tmp_path / "view"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lose_a_bit(shard):
    """Damage a file that keeps inode, size and time: what is remembered of it stays as it was."""
    status = shard.stat()
    harm(shard, "one bit", in_place=True)
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["overwritten", "truncated", "deleted"])
def test_each_damaged_file_is_found_by_name_and_restored_from_the_store(view, home, name, damage):
    before = files(view)
    assert faults(view) == faults(home) == {}
    harm(view / name, damage)
    found = faults(view)
    assert list(found) == [view / name]
    assert repair(found, store_folder(view, home.parents[1]), [], print) == {}
    assert faults(view) == {}
    assert files(view) == before


def test_a_store_with_sidecars_under_their_former_name_goes_on_as_it_was(view, home, own_store):
    for sidecar in (*home.glob("*.rows"), *view.glob("*.rows")):
        sidecar.rename(sidecar.with_suffix(".parquet"))
    assert faults(view) == faults(home) == {}
    assert extract(own_store, TABLE, out=view)[1] == []
    assert list(view.glob("*.parquet")) == [view / INDEX_NAME]  # what a tool reads that is given *.parquet
    harm(view / "shard-00001.rows", "deleted")
    found = faults(view)
    assert list(found) == [view / "shard-00001.rows"]
    assert repair(found, store_folder(view, own_store), [], print) == faults(view) == {}


def test_a_lost_bit_is_found_even_if_size_and_time_are_unchanged_and_its_copy_is_not_restored(view, home):
    lose_a_bit(view / "shard-00001.h5")  # also the store's, through the link
    FeatureTable.open(view)  # the quick look cannot see it
    found = faults(view)
    assert list(found) == [view / "shard-00001.h5"]
    assert repair(found, home, [], print) == found
    assert not (view / "shard-00001.h5").exists()
    assert not (home / "shard-00001.h5").exists()


def test_files_that_do_not_belong_together_are_faults(view):
    sidecar, index = view / "shard-00001.rows", read_index(view / INDEX_NAME)
    rows, record, _ = read_sidecar(sidecar)
    sidecar.unlink()
    write_sidecar(sidecar, rows, record, spec(precision="fp16"))
    harm(view / "shard-00002.rows", "replaced")  # by that of another shard
    (view / INDEX_NAME).unlink()
    write_index(view / INDEX_NAME, index)
    wrong = "does not describe the shard that the index lists"
    assert faults(view) == {sidecar: wrong, view / "shard-00002.rows": wrong}


@pytest.mark.parametrize("name", ["shard-00001.rows", INDEX_NAME])
def test_what_the_store_holds_of_other_images_is_not_restored(view, home, tmp_path, name):
    shutil.rmtree(home)
    extract(home.parents[1], manifest(names(26)[16:]), out=tmp_path / "second")
    extract(home.parents[1], manifest(names(26)[16:20]), out=tmp_path / "second")
    harm(view / name, "deleted")
    found = faults(view)
    assert repair(found, home, [], print) == found
    assert not (view / name).exists()


@pytest.mark.parametrize("linked", [True, False])
def test_damage_that_went_through_the_links_is_removed_everywhere_and_only_that_shard_is_made_again(
    view, home, own_store, tmp_path, linked
):
    cache, shard = tmp_path / "cache" / "ab", view / "shard-00001.h5"
    cache.mkdir(parents=True)
    (cache / "dangling").symlink_to(tmp_path / "gone")
    before = files(view)
    if not linked:  # the store is on another file system
        shard.unlink()
        shard.write_bytes(before[shard.name])
    for name in ("shard-00000.h5", shard.name):
        os.link(view / name, cache / name)
    harm(shard, "overwritten", in_place=True)
    found = faults(view)
    assert repair(found, home, [cache], print) == (found if linked else {})
    assert sorted(path.name for path in cache.iterdir()) == ["dangling", "shard-00000.h5"]
    assert (home / shard.name).exists() is shard.exists() is not linked
    assert extract(own_store, TABLE, out=view)[1] == (names(10)[4:8] if linked else [])
    assert files(view) == before
