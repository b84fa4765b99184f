"""Result files: what is in them, and how a stopped run goes on."""

import csv
import json

import pytest

from stages.predict.results import Prediction, check_out, columns, open_results, read_rows
from storage.errors import DataError, SettingError


def results(count):
    names = ['a "quoted", name.png', "=1+1.png", "c.png", *(f"{number}.png" for number in range(count))]
    made = [
        Prediction(path=name, status="ok", verdict="real", probability=0.25, logit=-1.0986122886681098, detector="d")
        for name in names[:count]
    ]
    made[1] = Prediction(path=names[1], status="failed", error="truncated: gone", detector="d")
    return made


def write(out, predictions, *, resume=False, stop=None, check=False, detector="d"):
    check_out(out, resume=resume)
    with open_results(out, columns(check=check), detector=detector) as (add, there):
        for number, prediction in enumerate(predictions):
            if number == stop:
                raise KeyboardInterrupt
            if prediction.path not in there:
                add(prediction)
    return there


def read(out):
    return [row for row, _ in read_rows(out)]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_all_values_come_back(tmp_path, form):
    facts = {"status": "ok", "verdict": "real", "probability": 0.25, "logit": -1.0, "detector": "d+check"}
    checked = [Prediction(path="a.png", spread=0.125, flipped="", **facts)]
    checked += [Prediction(path="b.png", spread=0.5, flipped="jpeg:95 webp:90", **facts)]
    for check, made in ((False, results(5)), (True, checked)):
        out = tmp_path / f"{check}.{form}"
        write(out, made, check=check)
        assert read(out) == [one.row(columns(check=check)) for one in made]


@pytest.mark.parametrize("name", ["=1+1", "@a", "\ra", "'=a", "a=1"])
def test_no_spreadsheet_runs_a_name_and_it_comes_back(tmp_path, name):
    out = tmp_path / "out.csv"
    write(out, [Prediction(path=name, status="failed", error=name, detector="d")])
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert not row["path"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert not row["error"].startswith(("=", "+", "-", "@"))
    assert [row["path"] for row in read(out)] == [name]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("torn", ["", 'c.png,ok,re"'])
def test_a_stopped_run_goes_on_where_it_was(tmp_path, form, torn):
    out = tmp_path / f"out.{form}"
    with pytest.raises(KeyboardInterrupt):
        write(out, results(6), stop=3)
    with out.open("a") as file:
        file.write(torn)
    there = write(out, results(6), resume=True)
    assert dict(there) == {one.path: one.status for one in results(3)}
    assert read(out) == [one.row(columns(check=False)) for one in results(6)]


def test_nothing_is_overwritten(tmp_path):
    out, page = tmp_path / "out.csv", tmp_path / "out.html"
    write(out, results(3))
    before = out.read_bytes()
    with pytest.raises(SettingError, match="exists; continue it with --resume"):
        write(out, results(3))
    assert out.read_bytes() == before
    page.touch()
    for resume, fault in ((False, "exists; name another file"), (True, r"cannot be resumed, only a \.csv or \.jsonl")):
        with pytest.raises(SettingError, match=fault):
            check_out(page, resume=resume)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("odd.csv", b"a,b\n1,2\n"),
        ("odd.csv", b"\xff\xfe\n1"),
        ("odd.jsonl", b'{"path": 1}\n'),
        ("odd.jsonl", json.dumps(results(2)[0].row(columns(check=False)) | {"logit": float("nan")}).encode() + b"\n"),
    ],
)
def test_resuming_a_foreign_file_leaves_it_as_it_is(tmp_path, name, content):
    out = tmp_path / name
    out.write_bytes(content)
    with pytest.raises(DataError, match=r"odd\..* (holds|has the columns)"):
        write(out, results(3), resume=True)
    assert out.read_bytes() == content


def test_rows_of_another_detector_or_with_other_columns_are_not_gone_on_with(tmp_path):
    out = tmp_path / "out.csv"
    write(out, results(3))
    with pytest.raises(DataError, match="row 1 was made by detector d, this is e"):
        write(out, results(3), resume=True, detector="e")
    with pytest.raises(DataError, match="has the columns"):
        write(out, results(3), resume=True, check=True)
