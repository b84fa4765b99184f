"""What this machine wrote down of its runs is shown beside the very files that they made, and beside no other."""

import pytest

from pipeline import paths
from pipeline.params import load_params
from pipeline.speed import record, recorded
from running import PROJECT


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return load_params(PROJECT / "profiles" / "demo.yaml")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_record_is_shown_until_what_it_made_is_replaced(params):
    contents = write(paths.contents("demo-train"), "features")
    history = write(paths.head("demo-train", "ltd", 0).with_suffix(".csv"), "epochs")
    record("extraction", "demo-train", of=[contents], seconds=2.0, images=6)
    record("training", "demo-train/ltd/0", of=[history], seconds=3.0)
    shown = [(run.kind, run.what, run.seconds, run.images) for run in recorded(params)]
    assert shown == [("extraction", "demo-train", 2.0, 6), ("training", "ltd", 3.0, None)]
    assert all("cores of" in run.machine for run in recorded(params))
    contents.write_text("other features")
    assert [run.kind for run in recorded(params)] == ["training"]
    history.unlink()
    assert list(recorded(params)) == []


def test_nothing_is_written_down_of_what_is_not_all_there(params):
    record("extraction", "demo-train", of=[paths.contents("demo-train")], seconds=2.0)
    write(paths.contents("demo-train"), "features")
    assert list(recorded(params)) == []
