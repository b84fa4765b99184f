"""What this machine wrote down of its runs is shown beside the report."""

from pipeline.params import load_params
from pipeline.speed import record, recorded
from running import PROJECT


def test_the_last_run_of_each_kind_is_shown_in_the_order_of_the_graph(tmp_path, monkeypatch):
    params = load_params(PROJECT / "profiles" / "demo.yaml")
    monkeypatch.chdir(tmp_path)
    assert list(recorded(params)) == []
    record("training", "demo-train/ltd/0", seconds=3.0)
    record("extraction", "demo-train", seconds=9.0)
    record("extraction", "demo-train", seconds=2.0, images=6)
    record("extraction", "a-corpus-of-another-study", seconds=2.0)
    shown = [(run.kind, run.what, run.seconds, run.images) for run in recorded(params)]
    assert shown == [("extraction", "demo-train", 2.0, 6), ("training", "ltd", 3.0, None)]
    assert all("cores of" in run.machine for run in recorded(params))
