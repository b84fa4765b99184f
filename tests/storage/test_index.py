import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import SPEC, manifest, names, shard_rows, spec

from storage.errors import DataError
from storage.index import (
    INDEX_SCHEMA,
    SIDECAR_SCHEMA,
    Index,
    ShardRecord,
    read_index,
    read_sidecar,
    rows_of_set,
    set_names,
    write_index,
    write_sidecar,
)
from storage.manifest import MANIFEST_SCHEMA, read_manifest, write_manifest
from storage.parquet import write_parquet
from storage.spec import FeatureSpec

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
RECORD = st.builds(
    ShardRecord, name=NAME, size_bytes=st.integers(0, 2**60), sha256=st.text("0123456789abcdef"), rows=st.integers(0)
)
COLUMN = {
    pa.large_string(): NAME, pa.int8(): st.integers(-1, 1), pa.int16(): st.integers(0, 100),
    pa.int32(): st.integers(0, 9999),
    pa.int64(): st.integers(0, 2**62), pa.list_(pa.large_string()): st.lists(NAME, max_size=3),
}  # fmt: skip


def rows_of(schema):
    columns = {field.name: COLUMN[field.type] if not field.nullable else st.none() | COLUMN[field.type]
               for field in schema}  # fmt: skip
    return st.lists(st.fixed_dictionaries(columns), max_size=5)


@settings(max_examples=30)
@given(rows_of(SIDECAR_SCHEMA), RECORD)
def test_sidecars_come_back(tmp_path_factory, rows, record):
    path = tmp_path_factory.mktemp("sidecar") / "s.parquet"
    write_sidecar(path, pa.Table.from_pylist(rows, schema=SIDECAR_SCHEMA), record, SPEC)
    table, read_record, read_spec = read_sidecar(path)
    assert (table.to_pylist(), read_record, read_spec) == (rows, record, SPEC)


# One changed value for every setting in the key.
CHANGES = {
    "backbone": "other", "weights": "1" * 64, "activation": "gelu", "blocks": 7, "stored_blocks": (1, 2, 3),
    "width": 16, "embedding": 6, "taps": ("cls",), "view": {**SPEC.view, "geometry": "other"},
    "mean": (0.1, 0.0, 0.0), "std": (1.0, 1.0, 0.9), "precision": "fp16", "extractor": 2, "dtype": "float32",
    "schema": 2, "patches": 16,
}  # fmt: skip


@pytest.mark.parametrize("name", vars(SPEC))
def test_every_setting_is_in_the_key_and_the_difference_names_it(name):
    other = spec(**{name: CHANGES[name]})
    assert other.key != SPEC.key
    assert FeatureSpec.from_json(other.to_json(), "a file") == other
    difference = other.difference(SPEC)
    assert difference.startswith("view.geometry: other here, toy there" if name == "view" else f"{name}: ")
    assert ";" not in difference


def test_keys_stay_what_they_are_whatever_the_order_of_settings():
    """Another key for the same settings would make every user extract all features again."""
    other = spec(view=dict(reversed(SPEC.view.items())))
    assert list(other.view) != list(SPEC.view)
    assert (other.key, other.difference(SPEC)) == (SPEC.key, "")
    assert SPEC.key == "f60d577b29363bb2ef1f9f764d343fbb"
    assert spec(patches=None, taps=("cls",)).key == "a64c1c7c2c756f65f4deb312baa7224b"


def test_metadata_columns_or_a_hash_that_do_not_fit_are_refused_by_name(tmp_path):
    path = tmp_path / "i.parquet"
    write_index(path, Index(INDEX_SCHEMA.empty_table(), SPEC, "toy", ()))
    table = pq.read_table(path)
    good = json.loads(table.schema.metadata[b"ltdpipe"])
    for change, what in (
        ({"key": "0" * 32}, "states the key"),
        ({"schema": 99}, "schema version 99"),
        ({"spec": {**good["spec"], "precision": "fp16"}}, "states the key"),
        ({"spec": {"backbone": "toy"}}, "damaged"),
        ({"spec": {**good["spec"], "grid": 7}}, r"another version of ltdpipe.* does not know the feature .* grid;"),
        ({"shards": [{"name": "a"}]}, "damaged"),
    ):
        text = json.dumps({**good, **change}).encode()
        write_parquet(table.replace_schema_metadata({b"ltdpipe": text}), path)
        with pytest.raises(DataError, match=rf"i\.parquet .*{what}"):
            read_index(path)
    for metadata in ({}, {b"ltdpipe": b"{"}, {b"ltdpipe": b"\xff"}):
        write_parquet(table.replace_schema_metadata(metadata), path)
        with pytest.raises(DataError, match=r"i\.parquet"):
            read_index(path)
    write_parquet(table.set_column(table.column_names.index("row"), "row", table["row"].cast(pa.int64())), path)
    with pytest.raises(DataError, match=r"i\.parquet is damaged or of another version: its columns"):
        read_index(path)
    pq.write_table(table.replace_schema_metadata({b"ltdpipe": table.schema.metadata[b"ltdpipe"]}), path)
    with pytest.raises(DataError, match=r"i\.parquet cannot be read .*not written by this version"):
        read_index(path)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=8), st.integers(0, 3), st.integers(0, 3))
def test_rows_of_a_set_are_those_that_list_it(sets, start, chunk):
    table = pa.table({"sets": pa.array(sets, pa.list_(pa.string()))}).slice(start)
    table = pa.concat_tables([table.slice(0, chunk), table.slice(chunk)])
    expected = [row for row, members in enumerate(sets[start:]) if "a" in members]
    assert np.array_equal(rows_of_set(table, "a"), expected)
    assert set_names(table) == sorted({name for members in sets[start:] for name in members})


def test_strings_have_64_bit_offsets_in_memory_whatever_the_file_was_written_from(tmp_path):
    """With 32 bits the paths of 22 million images, or the hashes of 33 million, cannot be sorted, joined or merged."""
    images = manifest(names(2))
    record, rows = ShardRecord("shard-00000.h5", 1, "0", 2), shard_rows(images.to_pylist())
    full = [{"shard": "shard-00000.h5", **one, **other} for one, other in zip(images.to_pylist(), rows, strict=True)]
    index = Index(pa.Table.from_pylist(full, schema=INDEX_SCHEMA), SPEC, "toy", (record,))
    write_sidecar(tmp_path / "sidecar", pa.Table.from_pylist(rows, schema=SIDECAR_SCHEMA), record, SPEC)
    assert large_strings(read_sidecar(tmp_path / "sidecar")[0]) == 6
    for number, table in enumerate((index.table, index.table.cast(with_short_strings(index.table.schema)))):
        write_index(tmp_path / f"index{number}", Index(table, SPEC, "toy", (record,)))
        assert large_strings(read_index(tmp_path / f"index{number}").table) == 11
        write_manifest(table.select(MANIFEST_SCHEMA.names), tmp_path / f"manifest{number}")
        assert large_strings(read_manifest(tmp_path / f"manifest{number}")) == 5
    for name in ("index", "manifest"):
        assert (tmp_path / f"{name}0").read_bytes() == (tmp_path / f"{name}1").read_bytes()


def with_short_strings(schema):
    types = {pa.large_string(): pa.string(), pa.list_(pa.large_string()): pa.list_(pa.string())}
    return pa.schema([field.with_type(types.get(field.type, field.type)) for field in schema])


def large_strings(table):
    assert not {pa.string(), pa.list_(pa.string())} & set(table.schema.types)
    return sum(each in {pa.large_string(), pa.list_(pa.large_string())} for each in table.schema.types)
