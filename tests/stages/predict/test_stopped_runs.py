"""A run of `ltdpipe predict` that is stopped says how to go on, and goes on without doing anything twice."""

import csv
import signal
import subprocess
import time

import pytest

from running import environment, run_command


def rows_of(out):
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def stopped_after(rows, study, cwd, number):
    """Start a run on a list that does not end, and stop it by a signal when all rows of the list are written."""
    out = cwd / "out.csv"
    command = ["ltdpipe", "predict", str(study.bundle), "-", "-o", out.name, "--loaders", "0", "--batch", "1"]
    with subprocess.Popen(
        command, cwd=cwd, env=environment(cwd), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        run.stdin.write("".join(f"{path}\n" for path in rows))
        run.stdin.flush()
        while not out.exists() or out.read_text().count("\n") < 1 + len(rows):
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.02)
        run.send_signal(number)
        said = run.stderr.read()
        return run.wait(), said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_says_how_to_go_on_and_goes_on(study, tmp_path, number, status):
    paths = sorted(str(path) for path in (study.images("test") / "real").iterdir())[:5]
    code, said = stopped_after(paths[:3], study, tmp_path, number)
    assert code == status
    if number != signal.SIGKILL:
        assert "run the same command with --resume out.csv in place of --out" in said
        assert "Traceback" not in said
    kept = rows_of(tmp_path / "out.csv")
    assert [row["path"] for row in kept] == paths[:3]
    done = run_command("ltdpipe", "predict", str(study.bundle), *paths, "--resume", "out.csv", cwd=tmp_path)
    assert "3 there already" in done.stderr
    assert rows_of(tmp_path / "out.csv")[:3] == kept
    assert [row["path"] for row in rows_of(tmp_path / "out.csv")] == paths
