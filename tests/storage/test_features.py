import os
import shutil

import numpy as np
import pytest
from faults import DAMAGE, harm, touched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import SPEC, extract, features, manifest, names, spec

from storage.atomic import sha256_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import INDEX_NAME, Index, read_index, remember_sound, shard_fault, write_index

IMAGES, BROKEN = 23, frozenset({"fake/004.png", "fake/011.png"})
PATHS = [path for path in names(IMAGES) if path not in BROKEN]
pytestmark = pytest.mark.usefixtures("own_store")
same_table = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture
def directory(tmp_path, own_store):
    """Shards of 5 images that hold every third image first: the index's order is not that of the shards."""
    paths = names(IMAGES)
    extract(own_store, manifest(paths[::3]), size=5, broken=BROKEN)
    extract(own_store, manifest(paths), size=5, broken=BROKEN, out=tmp_path / "features")
    return tmp_path / "features"


@pytest.fixture
def table(directory):
    return FeatureTable.open(directory)


def test_opening_says_what_is_there(table):
    assert (table.corpus, table.spec, table.key, len(table)) == ("toy", SPEC, SPEC.key, len(PATHS))
    assert table.index["path"].to_pylist() == PATHS
    assert table.failed["path"].to_pylist() == sorted(BROKEN)
    assert set(table.failed["error"].to_pylist()) == {"UnidentifiedImageError: not an image"}
    assert np.array_equal(table.rows_of_set("toy"), np.arange(len(PATHS)))
    assert not len(table.rows_of_set("other"))


@same_table
@given(
    st.sampled_from(SPEC.taps),
    st.none() | st.lists(st.sampled_from(SPEC.stored_blocks), max_size=4),
    st.none() | st.lists(st.integers(0, len(PATHS) - 1), max_size=30),
)
def test_any_tap_blocks_and_rows_come_in_the_order_asked_for(table, tap, blocks, rows):
    chosen = PATHS if rows is None else [PATHS[row] for row in rows]
    expected = features(chosen)[tap]
    if tap != "embedding":
        layers = [SPEC.stored_blocks.index(block) for block in (SPEC.stored_blocks if blocks is None else blocks)]
        expected = expected[layers].swapaxes(0, 1)
    read = table.read(tap, blocks=blocks, rows=None if rows is None else np.array(rows, dtype=int))
    assert np.array_equal(read, expected)
    assert read.flags.c_contiguous


def test_what_was_not_extracted_is_refused_by_name(table):
    with pytest.raises(DataError, match=r"no tap 'ln2_cls', only cls, embedding, attention.*extract\.taps"):
        table.read("ln2_cls")
    with pytest.raises(DataError, match=r"lacks block\(s\) \[0, 5\]; it holds \[1, 2, 3, 4\]"):
        table.read(blocks=[0, 1, 5])


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("damage", [*DAMAGE, "deleted", "replaced"])
def test_a_damaged_shard_is_refused_by_name(directory, damage, in_place):
    FeatureTable.open(directory)  # found sound, and remembered so
    harm(directory / "shard-00001.h5", damage, in_place=in_place and damage != "deleted")
    with pytest.raises(DataError, match=r"shard-00001\.h5 .*; `ltdpipe verify --repair` restores it"):
        FeatureTable.open(directory)


def test_where_nothing_can_be_remembered_features_are_read_and_nothing_is_written_here(
    directory, tmp_path, monkeypatch
):
    shutil.rmtree(tmp_path / "user-cache")
    (tmp_path / "user-cache").write_text("no folder")
    monkeypatch.delenv("LTDPIPE_STORE")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert len(FeatureTable.open(directory)) == len(PATHS)
    assert list((tmp_path / "here").iterdir()) == []


def test_a_shard_is_hashed_once_and_again_when_it_was_touched_or_copied(directory, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr("storage.index.sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
    FeatureTable.open(directory)
    assert hashed == []  # they were hashed when they were written
    touched(directory / "shard-00001.h5")
    copy = shutil.copytree(directory, tmp_path / "copy")
    shards = sorted(path.name for path in copy.glob("*.h5"))
    for one in (directory, copy, directory, copy):
        FeatureTable.open(one)
    assert hashed[0] == "shard-00001.h5"  # of the original, the one that was touched
    assert sorted(hashed[1:]) == shards  # of the copy all, by threads in any order


def test_the_number_of_the_device_does_not_matter(directory, tmp_path, monkeypatch):
    """Two nodes give one disk two numbers."""
    shutil.rmtree(tmp_path / "user-cache")
    path = directory / "shard-00000.h5"
    record = read_index(directory / INDEX_NAME).shards[0]
    status = list(path.stat())
    status[2] += 1  # st_dev
    remember_sound(record.sha256, os.stat_result(status, {"st_mtime_ns": path.stat().st_mtime_ns}))
    monkeypatch.setattr("storage.index.sha256_of", lambda _: None)
    assert shard_fault(path, record) is None


def test_a_missing_index_or_one_of_other_settings_than_its_shards_is_refused(directory):
    index = read_index(directory / INDEX_NAME)
    (directory / INDEX_NAME).unlink()
    with pytest.raises(DataError, match=r"index\.parquet does not exist"):
        FeatureTable.open(directory)
    other = spec(activation="gelu")
    write_index(directory / INDEX_NAME, Index(index.table, other, index.corpus, index.shards))
    with pytest.raises(DataError, match=r"shard-0000\d\.h5 has the feature key"):
        FeatureTable.open(directory).read()
