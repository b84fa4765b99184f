import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import DataError
from storage.manifest import MANIFEST_SCHEMA, manifest_table, read_manifest, write_manifest

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
ROW = st.fixed_dictionaries(
    {
        "path": NAME,
        "label": st.sampled_from([0, 1, None]),
        "generator": st.none() | NAME,
        "split": st.sampled_from(["train", "val", None]),
        "sets": st.lists(NAME, max_size=3),
        "category": st.none() | NAME,
        "size_bytes": st.integers(0, 2**62),
        "mtime_ns": st.integers(-(2**62), 2**62),
    }
)
ROWS = st.lists(ROW, max_size=6, unique_by=lambda row: row["path"])


@settings(max_examples=40)
@given(ROWS, st.randoms())
def test_rows_come_back_sorted_by_path_whatever_their_order(tmp_path_factory, rows, random):
    folder = tmp_path_factory.mktemp("manifest")
    write_manifest(manifest_table(rows), folder / "a.parquet")
    shuffled = random.sample(rows, len(rows))
    write_manifest(manifest_table(shuffled), folder / "b.parquet")
    assert read_manifest(folder / "a.parquet").to_pylist() == sorted(rows, key=lambda row: row["path"].encode())
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()


def test_columns_that_others_added_are_passed_over_and_columns_and_rows_come_in_any_order(tmp_path):
    table = manifest_table([{"path": path, "sets": ["s"], "size_bytes": 1, "mtime_ns": 1} for path in "ab"])
    foreign = table.select(table.column_names[::-1]).append_column("note", pa.array(["mine", "mine"])).take([1, 0])
    pq.write_table(foreign, tmp_path / "m.parquet")
    read = read_manifest(tmp_path / "m.parquet")
    assert read.column_names == MANIFEST_SCHEMA.names
    assert read.to_pylist() == table.to_pylist()


def test_a_file_listed_twice_is_refused():
    rows = [{"path": path, "sets": [], "size_bytes": 1, "mtime_ns": 1} for path in ("b", "a", "c", "a")]
    with pytest.raises(DataError, match="'a' twice"):
        manifest_table(rows)


def test_missing_damaged_and_foreign_files_are_refused_by_name(tmp_path):
    write_manifest(MANIFEST_SCHEMA.empty_table(), tmp_path / "empty.parquet")
    assert len(read_manifest(tmp_path / "empty.parquet")) == 0
    (tmp_path / "text.parquet").write_text("path,label")
    (tmp_path / "none.parquet").touch()
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "other.parquet")
    for name in ("absent.parquet", "text.parquet", "none.parquet", "other.parquet"):
        with pytest.raises(DataError, match=name):
            read_manifest(tmp_path / name)
