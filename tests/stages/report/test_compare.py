import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from running import invoke
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
    done = invoke("compare", *folders, "--out", "table.html", catch_exceptions=False)
    assert done.exit_code == 0
    assert "two" in done.output
    assert "<table" in (tmp_path / "table.html").read_text()
    with pytest.raises(SettingError, match=r"neither a head of params\.yaml"):
        invoke("compare", "nothing", "here", catch_exceptions=False)
    with pytest.raises(SettingError, match=r"ends in \.csv"):
        invoke("compare", *folders, "--out", "table.pdf", catch_exceptions=False)


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
    done = invoke("compare", "ltd", "linear", catch_exceptions=False)
    assert done.exit_code == 0
    assert "ltd against linear" in done.output
    assert done.output.index("nearest") < done.output.index("grid")  # the order of the study
    with pytest.raises(DataError, match="ltdpipe evaluate --corpus demo-test --trained-on demo-train --head ltd-raw"):
        invoke("compare", "ltd-raw", "linear", catch_exceptions=False)
