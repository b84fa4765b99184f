import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import average_precision_score

from pipeline.cli import ltdpipe
from stages.evaluate.scores import read_scores
from stages.report.compare import run
from storage.errors import DataError, SettingError

PROJECT = Path(__file__).parents[3]

SETS = {"one": True, "two": True, "fakes only": False}


def _records(table):
    return [dict(zip(table.header, row, strict=True)) for row in table.blocks[0].rows]


def test_two_heads_are_compared_set_by_set_whatever_the_order_of_rows(study):
    better = study.add_scores("good", 1, SETS, shift=2.0)
    shuffled = study.add_scores("good", 1, SETS, shift=2.0, order=np.random.default_rng(0).permutation)
    worse = study.add_scores("poor", 1, SETS, shift=0.2)
    table, again = (run(one=[one], other=[worse], names=("good", "poor"), replicates=200) for one in (better, shuffled))
    assert table == again
    rows = _records(table)
    assert {(row["head"], row["other"]) for row in rows} == {("good", "poor")}
    assert {row["set"] for row in rows} == {"one", "two"}
    ap = rows[0]
    labels = [read_scores(path) for path in (better, worse)]
    rows_of = [scores.members["one"] for scores in labels]
    values = [
        average_precision_score(scores.label[rows], scores.logit[rows])
        for scores, rows in zip(labels, rows_of, strict=True)
    ]
    assert [ap["first"].value, ap["second"].value] == pytest.approx(values)
    assert ap["difference"].value == pytest.approx(values[0] - values[1])
    assert ap["p"] < 0.1
    assert ap["p_holm"] >= ap["p"]


def test_a_head_is_no_better_than_itself(study):
    path = study.add_scores("ltd", 1, SETS)
    again = study.add_scores("ltd", 1, SETS)
    table = run(one=[path], other=[again], names=("before", "after"), replicates=50)
    for row in _records(table):
        assert (row["difference"].value, row["p"], row["of"]) == (0, 1.0, "weights")
        assert row["low"].value == -row["high"].value
        assert (row["head"], row["other"]) == ("ltd (before)", "ltd (after)")


def test_single_heads_are_a_pair_and_of_several_those_of_one_name(study):
    heads = ("a", 1), ("b", 2), ("c", 3), ("b", 1), ("c", 1)
    a, b, c, *again = (study.add_scores(head, 1, SETS, shift=shift) for head, shift in heads)
    for one, other, pairs in (
        ([a], [b], [("a (x)", "b (y)")]),
        ([a, b, c], again, [("b (x)", "b (y)"), ("c (x)", "c (y)")]),
    ):
        table = run(one=one, other=other, names=("x", "y"), replicates=9)
        assert list(dict.fromkeys((row["head"], row["other"]) for row in _records(table))) == pairs
    with pytest.raises(DataError, match="no head in common: a and b, c"):
        run(one=[a], other=[b, c], names=("x", "y"))
    with pytest.raises(DataError, match=f"x and y both hold {b}"):
        run(one=[a, b], other=[b, c], names=("x", "y"))
    fewer = study.add_scores("d", 1, SETS, reals=11)
    with pytest.raises(DataError, match="different images"):
        run(one=[a], other=[fewer], names=("a", "d"))


def test_the_command_compares_folders_and_writes_the_table(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = []
    for name, shift in (("old", 0.3), ("new", 2.0)):
        path = study.add_scores("ltd", 1, SETS, shift=shift)
        folder = tmp_path / name
        path.parent.rename(folder)
        folders.append(str(folder))
    done = CliRunner().invoke(ltdpipe, ["compare", *folders, "--out", "table.html"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "two" in done.output
    assert "<table" in (tmp_path / "table.html").read_text()
    with pytest.raises(SettingError, match=r"neither a head of params\.yaml"):
        CliRunner().invoke(ltdpipe, ["compare", "nothing", "here"], catch_exceptions=False)
    with pytest.raises(SettingError, match=r"ends in \.csv"):
        CliRunner().invoke(ltdpipe, ["compare", *folders, "--out", "table.pdf"], catch_exceptions=False)


def test_the_command_compares_heads_of_the_project(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(PROJECT / "profiles" / "demo.yaml", "params.yaml")
    for head, shift in (("ltd", 2.0), ("linear", 0.3)):
        for seed in (0, 1):
            sets = {"grid": True, "nearest": True}
            path = study.add_scores(head, seed, sets, corpus="demo-test", view="clean", shift=shift)
            folder = tmp_path / "scores" / "demo-test" / "demo-train" / f"{head}-{seed}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            path.parent.rename(folder)
    done = CliRunner().invoke(ltdpipe, ["compare", "ltd", "linear"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "ltd against linear" in done.output
    assert done.output.index("nearest") < done.output.index("grid")  # the order of the study
    with pytest.raises(DataError, match="ltdpipe evaluate --corpus demo-test --trained-on demo-train --head ltd-raw"):
        CliRunner().invoke(ltdpipe, ["compare", "ltd-raw", "linear"], catch_exceptions=False)


def test_heads_of_one_name_and_two_trainings_are_two_heads(study, tmp_path, monkeypatch):
    """A head file made when the study had one training corpus says its name alone."""
    monkeypatch.chdir(tmp_path)
    demo = (PROJECT / "profiles" / "demo.yaml").read_text()
    changed = demo.replace("train_on: [demo-train]", "train_on: [demo-train, demo-test]").replace("[0, 1]", "[0]")
    Path("params.yaml").write_text(changed)
    for trained_on, shift in (("demo-train", 2.0), ("demo-test", 0.3)):
        about = {"corpus": "demo-test", "view": "clean", "facts": {"trained_on": trained_on}}
        for head in ("ltd", "linear"):
            path = study.add_scores(head, 0, {"grid": True}, shift=shift, **about)
            folder = tmp_path / "scores" / "demo-test" / trained_on / f"{head}-0"
            folder.parent.mkdir(parents=True, exist_ok=True)
            path.parent.rename(folder)
    trainings = ["scores/demo-test/demo-train", "scores/demo-test/demo-test"]
    for sides, pairs in (
        (["ltd (demo-train)", "ltd (demo-test)"], ["ltd (demo-train) against ltd (demo-test)"]),
        (trainings, [f"{head} ({trainings[0]}) against" for head in ("linear", "ltd")]),
    ):
        done = CliRunner().invoke(ltdpipe, ["compare", *sides], catch_exceptions=False)
        for pair in pairs:
            assert pair in " ".join(done.output.split())
    with pytest.raises(SettingError, match=r"ltd \(demo-train\), ltd-raw \(demo-train\)"):
        CliRunner().invoke(ltdpipe, ["compare", "ltd", "linear"], catch_exceptions=False)
