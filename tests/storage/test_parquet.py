"""Parquet files of ours: damage is never read as other data, and reading them harms no process."""

import random
import subprocess
import sys

import pyarrow as pa
import pytest
from synthetic import SPEC, manifest, names, shard_rows

from running import PROJECT, environment
from storage.errors import DataError
from storage.index import SIDECAR_SCHEMA, ShardRecord, read_sidecar, write_sidecar
from storage.manifest import read_manifest, write_manifest
from storage.parquet import write_parquet

PROGRAM = """
import sys
from pathlib import Path
import torch
from storage.parquet import read_parquet
read_parquet(Path("index.parquet"), what="index", remedy="-")
sys.exit(3)
"""


def write_as_sidecar(table, path):
    rows = pa.Table.from_pylist(shard_rows(table.to_pylist()), schema=SIDECAR_SCHEMA)
    write_sidecar(path, rows, ShardRecord("shard-00000.h5", 1000, "ab" * 32, len(rows)), SPEC)


@pytest.mark.parametrize(("write", "read"), [(write_manifest, read_manifest), (write_as_sidecar, read_sidecar)])
def test_a_flipped_bit_anywhere_is_never_read_as_other_data(tmp_path, write, read):
    """Parquet's own page checksums would pass 505 of 1,500 flips in the metadata, where settings and shards stand."""
    path, chance, refused = tmp_path / "file.parquet", random.Random(0), []
    write(manifest(names(300)), path)
    content, good = path.read_bytes(), read(path)
    for _ in range(200):
        at = chance.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
        try:
            assert read(path) == good  # the mark of the hash was hit: a manifest may be another program's
        except DataError as error:
            refused.append(str(error))
    assert all("file.parquet" in line for line in refused)
    assert len(refused) >= (190 if read is read_manifest else 200)


def test_a_process_that_ends_right_after_a_read_ends_with_its_own_exit_code(tmp_path):
    names = [f"{number}.png" for number in range(12)]
    write_parquet(pa.table({f"column_{number}": names for number in range(16)}), tmp_path / "index.parquet")
    command = [sys.executable, "-c", PROGRAM]
    # four at a time, so that Arrow's threads are late when the interpreter ends
    started = [subprocess.Popen(command, cwd=tmp_path, env=environment(PROJECT)) for _ in range(4)]
    assert [process.wait() for process in started] == [3] * 4
