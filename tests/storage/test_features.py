from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
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


def test_rows_may_be_repeated_a_slice_or_a_mask_and_torch_takes_them_without_a_copy(table):
    mask = np.arange(len(PATHS)) % 4 == 1
    for rows in (np.array([1, 1, 2, 4, 4, 4, 5]), slice(3, 9), mask):
        assert np.array_equal(table.read(blocks=[3], rows=rows), table.read(blocks=[3])[rows])
    read = table.read("embedding")
    assert torch.from_numpy(read).data_ptr() == read.ctypes.data


def test_batches_cover_all_rows_in_order(table):
    parts = list(table.batches("embedding", size=4))
    assert [part.start for part, _ in parts] == list(range(0, len(PATHS), 4))
    assert np.array_equal(np.concatenate([batch for _, batch in parts]), table.read("embedding"))


def test_what_was_not_extracted_is_refused_by_name(table):
    with pytest.raises(DataError, match=r"no tap 'ln2_cls', only cls, embedding, attention.*extract\.taps"):
        table.read("ln2_cls")
    with pytest.raises(DataError, match=r"lacks block\(s\) \[0, 5\]; it holds \[1, 2, 3, 4\]"):
        table.read(blocks=[0, 1, 5])


def test_more_shards_than_a_process_may_open_files_are_read(tmp_path, own_store):
    resource = pytest.importorskip("resource")
    extract(own_store, manifest(names(80)), size=1, out=tmp_path / "many")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(descriptor.name) for descriptor in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 40, hard))
    try:
        assert np.array_equal(FeatureTable.open(tmp_path / "many").read("embedding"), features(names(80))["embedding"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("damage", [*DAMAGE, "deleted", "replaced"])
def test_a_damaged_shard_is_refused_by_name(directory, damage, in_place):
    FeatureTable.open(directory)  # found sound, and remembered so
    harm(directory / "shard-00001.h5", damage, in_place=in_place and damage != "deleted")
    with pytest.raises(DataError, match=r"shard-00001\.h5 .*; `ltdpipe verify --repair` restores it"):
        FeatureTable.open(directory)


def test_another_file_of_the_same_size_and_time_is_hashed(directory):
    shard = directory / "shard-00002.h5"
    status, content = shard.stat(), shard.read_bytes()
    twin = directory / "twin"
    twin.write_bytes(content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
    os.utime(twin, ns=(status.st_atime_ns, status.st_mtime_ns))
    twin.replace(shard)
    with pytest.raises(DataError, match=r"shard-00002\.h5 has another content"):
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
    assert hashed == ["shard-00001.h5", *shards]


def test_the_number_of_the_device_does_not_matter(directory, monkeypatch):
    """Two nodes give one disk two numbers."""
    path = directory / "shard-00000.h5"
    record = read_index(directory / INDEX_NAME).shards[0]
    status = list(path.stat())
    status[2] += 1  # st_dev
    remember_sound(record.sha256, os.stat_result(status, {"st_mtime_ns": path.stat().st_mtime_ns}))
    monkeypatch.setattr("storage.index.sha256_of", lambda _: None)
    assert shard_fault(path, record) is None


@pytest.mark.parametrize("column", ["shard", "row"])
def test_an_index_that_points_outside_its_shards_is_refused_by_name(directory, column):
    index = read_index(directory / INDEX_NAME)
    rows = {record.name: record.rows for record in index.shards}[index.table["shard"][0].as_py()]
    wrong = (
        pa.array(["shard-00099.h5"] * IMAGES, pa.large_string())
        if column == "shard"
        else pa.array([rows] * IMAGES, pa.int32())
    )
    at = index.table.schema.get_field_index(column)
    table = index.table.set_column(at, index.table.schema.field(column), wrong)
    (directory / INDEX_NAME).unlink()
    write_index(directory / INDEX_NAME, Index(table, index.spec, index.corpus, index.shards))
    with pytest.raises(DataError, match=r"index\.parquet is damaged: it places 'fake/000\.png' outside"):
        FeatureTable.open(directory)


def test_a_missing_index_or_one_of_other_settings_than_its_shards_is_refused(directory):
    index = read_index(directory / INDEX_NAME)
    (directory / INDEX_NAME).unlink()
    with pytest.raises(DataError, match=r"index\.parquet does not exist"):
        FeatureTable.open(directory)
    other = spec(activation="gelu")
    write_index(directory / INDEX_NAME, Index(index.table, other, index.corpus, index.shards))
    with pytest.raises(DataError, match=r"shard-0000\d\.h5 has the feature key"):
        FeatureTable.open(directory).read()
