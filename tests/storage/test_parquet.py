"""Reading Parquet files, as far as the process is concerned; what is damaged is told in the tests of each file."""

import subprocess
import sys

import pyarrow as pa

from running import PROJECT, environment
from storage.parquet import write_parquet

PROGRAM = """
import sys
from pathlib import Path
import torch
from storage.parquet import read_parquet
read_parquet(Path("index.parquet"), what="index", remedy="-")
sys.exit(3)
"""


def test_a_process_that_ends_right_after_a_read_ends_with_its_own_exit_code(tmp_path):
    names = [f"{number}.png" for number in range(12)]
    write_parquet(pa.table({f"column_{number}": names for number in range(16)}), tmp_path / "index.parquet")
    codes = []
    for _ in range(3):  # four at a time, so that Arrow's threads are late when the interpreter ends
        command = [sys.executable, "-c", PROGRAM]
        started = [subprocess.Popen(command, cwd=tmp_path, env=environment(PROJECT)) for _ in range(4)]
        codes += [process.wait() for process in started]
    assert codes == [3] * 12
