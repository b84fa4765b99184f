"""A small extracted view on disk."""

import pyarrow as pa
import pytest

from storage.index import INDEX_NAME, INDEX_SCHEMA, Index, ShardRecord, write_index
from storage.shard import write_shard
from storage.spec import FeatureSpec


@pytest.fixture(autouse=True)
def _own_store(own_store):
    """What is remembered of sound shards lies in the test's own store."""


def _spec(blocks, patches):
    return FeatureSpec(
        backbone="toy", weights="0" * 64, activation="quickgelu", blocks=6, stored_blocks=tuple(blocks), width=8,
        embedding=4, taps=("cls", "attention") if patches else ("cls",), patches=patches,
        view={"crop": 224}, mean=(0, 0, 0), std=(1, 1, 1), precision="fp32", extractor=1,
    )  # fmt: skip


def write_features(folder, rows, cls, blocks=range(5), attention=None):
    """Write one shard and its index: rows are (path, label, generator), cls is (N, L, D), attention (N, L, P)."""
    folder.mkdir(parents=True)
    spec = _spec(blocks, None if attention is None else attention.shape[2])
    taps = {"cls": cls, "attention": attention}
    stored = {tap: taps[tap].transpose(1, 0, 2) for tap in spec.taps}
    sha256 = write_shard(folder / "shard-0.h5", stored, spec)
    index = [
        {"path": path, "label": label, "generator": generator, "sets": [], "size_bytes": 1, "mtime_ns": 1,
         "status": "ok", "shard": "shard-0.h5", "row": row}
        for row, (path, label, generator) in enumerate(rows)
    ]  # fmt: skip
    index.append({"path": "z", "label": 0, "sets": [], "size_bytes": 1, "mtime_ns": 1, "status": "failed"})
    record = ShardRecord("shard-0.h5", (folder / "shard-0.h5").stat().st_size, sha256, len(rows))
    table = pa.Table.from_pylist(index, schema=INDEX_SCHEMA)
    write_index(folder / INDEX_NAME, Index(table, spec, "demo", (record,)))
    return spec


@pytest.fixture
def write():
    """Write a view: ``write(folder, rows, tokens, blocks)``."""
    return write_features
