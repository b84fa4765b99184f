"""What every form of shard must do for its readers, whoever wrote it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import SPEC, features, names, spec

from storage.errors import DataError
from storage.shard import write_shard
from storage.shard_reader import Shard
from storage.spec import image_axis

IMAGES = 9
ARRAYS = features(names(IMAGES))


class ShardContract:
    """The contract; a subclass says how a shard of this form is written."""

    @staticmethod
    def write(path, arrays, spec) -> None:
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

    @settings(suppress_health_check=[HealthCheck.differing_executors])  # inherited on purpose
    @given(
        st.sampled_from(["cls", "grid", "embedding"]),
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
            patch.setattr("storage.shard_reader._PIECE_BYTES", piece_bytes)
            shard.read(tap, layers, rows, out)
        assert np.array_equal(out, expected)

    def test_rows_are_read_into_a_part_of_a_larger_array(self, shard):
        out = np.zeros((2, IMAGES + 2, 3, 8), np.float16)
        shard.read("cls", [1, 3], np.arange(IMAGES), out[1, 1:-1, :2])
        assert np.array_equal(out[1, 1:-1, :2], ARRAYS["cls"][[1, 3]].swapaxes(0, 1))
        assert not out[0].any()
        assert not out[1, [0, -1]].any()
        assert not out[1, :, 2].any()


class TestOurShard(ShardContract):
    @staticmethod
    def write(path, arrays, spec):
        write_shard(path, arrays, spec)

    def test_all_taps_are_read_at_their_place_in_the_file(self, shard):
        assert all(place.offset is not None for place in shard.taps.values())


class TestChunkedShardOfAnotherProgram(ShardContract):
    @staticmethod
    def write(path, arrays, spec):
        write_foreign(path, arrays, spec, chunks=True, compression="gzip")

    def test_no_tap_has_a_place(self, shard):
        assert all(place.offset is None for place in shard.taps.values())


class TestContiguousShardOfAnotherProgram(ShardContract):
    @staticmethod
    def write(path, arrays, spec):
        write_foreign(path, arrays, spec)


class TestShardOnAnotherFileSystem(ShardContract):
    @staticmethod
    def write(path, arrays, spec):
        write_shard(path, arrays, spec)

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, other_file_system):
        return other_file_system


def write_foreign(path, arrays, spec, **form):
    with h5py.File(path, "w") as file:
        file.attrs["key"] = spec.key
        for tap, array in arrays.items():
            file.create_dataset(tap, data=array, **form)


def test_contract_arrays_have_the_axes_that_the_settings_promise():
    for tap, array in features(names(3)).items():
        assert array.shape == SPEC.tap_shape(tap, 3)
        assert array.shape[image_axis(tap)] == 3
