import errno
import hashlib
import json
import os
import re
import stat

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import SPEC, extract, features, manifest, names, spec

from running import PROJECT
from storage.errors import DataError, ResourceError
from storage.shard import Shard, write_shard


def test_h5py_alone_reads_a_shard(tmp_path):
    arrays = features(names(5))
    write_shard(tmp_path / "s.h5", arrays, SPEC)
    assert stat.S_IMODE((tmp_path / "s.h5").stat().st_mode) == 0o444  # it is linked into the DVC cache
    with h5py.File(tmp_path / "s.h5") as file:
        assert (file.attrs["schema"], file.attrs["key"]) == (SPEC.schema, SPEC.key)
        assert json.loads(file.attrs["spec"])["backbone"] == "toy"
        assert set(file) == set(SPEC.taps)
        for tap, array in arrays.items():
            assert np.array_equal(file[tap][()], array)
            assert (file[tap].chunks, file[tap].compression) == (None, None)


def test_the_examples_of_the_documentation_run(tmp_path, own_store, monkeypatch, capsys):
    deep = spec(blocks=24, stored_blocks=tuple(range(24)))
    extract(own_store, manifest(names(12)), spec=deep, size=8, out=tmp_path / "data/features/demo-test/clean")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/formats.md").read_text(), flags=re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(example, {})
    said = capsys.readouterr().out
    assert deep.key in said
    assert "(24, 8)" in said
    assert "['fake/005.png']" in said


def test_equal_features_give_equal_files_whatever_their_memory_layout_and_the_hash_is_theirs(tmp_path):
    arrays = features(names(5))
    first = write_shard(tmp_path / "a.h5", arrays, SPEC)
    turned = {tap: np.asfortranarray(array) for tap, array in reversed(arrays.items())}
    assert write_shard(tmp_path / "b.h5", turned, SPEC) == first
    assert first == hashlib.sha256((tmp_path / "b.h5").read_bytes()).hexdigest()


@pytest.mark.parametrize("call", ["os.posix_fallocate", "os.pwrite"])
def test_a_disk_without_the_room_is_explained_and_nothing_stays(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"storage.shard.{call}", full)
    with pytest.raises(ResourceError, match=r"s\.h5: the disk is full"):
        write_shard(tmp_path / "s.h5", features(names(5)), SPEC)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_keeps_other_bytes_than_were_written_is_found_at_once(tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(
        "storage.shard.os.pwrite", lambda file, data, at: write(file, bytes([data[0] ^ 1]) + data[1:], at)
    )
    with pytest.raises(DataError, match=r"s\.h5: tap 'attention' read back differs"):
        write_shard(tmp_path / "s.h5", features(names(5)), SPEC)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 5000])
def test_a_file_that_ends_early_is_refused_by_name(tmp_path, cut):
    path = tmp_path / "s.h5"
    write_shard(path, features(names(50)), SPEC)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-cut])
    with pytest.raises(DataError, match=r"s\.h5"):
        Shard.open(path).check(SPEC, 50)


def test_a_file_of_another_kind_or_number_format_is_refused_by_name(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file.attrs["key"] = SPEC.key
        file["cls"] = np.zeros((4, 2, 8), np.float32)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["cls"] = np.zeros((4, 2, 8), np.float16)
    for name in ("text.h5", "wide.h5", "bare.h5", "none.h5"):
        with pytest.raises(DataError, match=name):
            Shard.open(tmp_path / name)


# What every form of shard must do for its readers, whoever wrote it.

IMAGES = 9
ARRAYS = features(names(IMAGES))


class ShardContract:
    """The contract; a subclass says how a shard of this form is written."""

    @staticmethod
    def write(path, arrays, spec):
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return tmp_path_factory.mktemp("shard")

    @pytest.fixture(scope="class")
    @classmethod
    def shard(cls, folder):
        cls.write(folder / "shard-00000.h5", ARRAYS, SPEC)
        return Shard.open(folder / "shard-00000.h5")

    def test_it_holds_the_taps_of_its_settings(self, shard):
        shard.check(SPEC, IMAGES)

    def test_a_shard_of_other_settings_is_refused_by_name(self, shard):
        with pytest.raises(DataError, match=r"shard-00000\.h5.*key"):
            shard.check(spec(precision="fp16"), IMAGES)
        with pytest.raises(DataError, match=r"shard-00000\.h5.*'cls'.*expected \(4, 10, 8\)"):
            shard.check(SPEC, IMAGES + 1)

    def test_whole_taps_come_back_as_written(self, shard):
        for tap, array in ARRAYS.items():
            assert np.array_equal(shard.map(tap), array)

    @settings(suppress_health_check=[HealthCheck.differing_executors], max_examples=40)  # inherited on purpose
    @given(
        st.sampled_from(["cls", "attention", "embedding"]),
        st.lists(st.integers(0, 3), max_size=4),
        st.sets(st.integers(0, IMAGES - 1)),
        st.sampled_from([1, 40, 160, 1 << 17]),
    )
    def test_any_blocks_and_rows_can_be_read_in_pieces_of_any_size(self, shard, tap, layers, rows, piece_bytes):
        rows = np.array(sorted(rows), dtype=np.int64)
        layers = None if tap == "embedding" else layers
        array = ARRAYS[tap]
        expected = array[rows] if layers is None else array[layers][:, rows].swapaxes(0, 1)
        out = np.full(expected.shape, np.nan, np.float16)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("storage.shard._PIECE_BYTES", piece_bytes)
            shard.read(tap, layers, rows, out)
        assert np.array_equal(out, expected)


class TestOurShard(ShardContract):
    @staticmethod
    def write(path, arrays, spec):
        write_shard(path, arrays, spec)


class TestChunkedShardOfAnotherProgram(ShardContract):
    @staticmethod
    def write(path, arrays, spec):
        with h5py.File(path, "w") as file:
            file.attrs["key"] = spec.key
            for tap, array in arrays.items():
                file.create_dataset(tap, data=array, chunks=True, compression="gzip")
