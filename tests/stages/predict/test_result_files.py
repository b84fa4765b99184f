"""Result files: what is in them, and how a stopped run goes on."""

import csv
import json
import tracemalloc
from contextlib import suppress

import pyarrow.parquet as pq
import pytest

from stages.predict.inputs import Item
from stages.predict.results import COLUMNS, Prediction, form_of, journal_of, open_rows, read_rows
from stages.predict.run import _pass_over
from storage.errors import DataError, SettingError

FORMS = ["csv", "jsonl", "parquet"]


def results(count):
    names = ['a "quoted", name.png', "=1+1.png", "c.png", *(f"{number}.png" for number in range(count))]
    made = [
        Prediction(path=name, status="ok", verdict="real", probability=0.25, logit=-1.0986122886681098, detector="d")
        for name in names[:count]
    ]
    made[1] = Prediction(path=names[1], status="failed", error="truncated: gone", detector="d")
    return made


def write(out, predictions, *, resume=False, stop=None):
    with open_rows(out, check=False, resume=resume) as (writer, done):
        there = list(done)
        for number, prediction in enumerate(predictions[len(there) :]):
            if number == stop:
                raise KeyboardInterrupt
            writer.write(prediction)
    return there


def read(out):
    if out.suffix == ".parquet":
        return pq.read_table(out).to_pylist()
    return list(read_rows(out, check=False))


@pytest.mark.parametrize("form", FORMS)
def test_all_values_come_back(tmp_path, form):
    out = tmp_path / f"out.{form}"
    write(out, results(5))
    assert read(out) == [one.row(check=False) for one in results(5)]
    assert not journal_of(out).exists() or journal_of(out) == out


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "\ta", "\ra", "\na", "'=a", "''=a", "'a", "a=1"])
def test_no_spreadsheet_runs_a_name_and_it_comes_back(tmp_path, name):
    out = tmp_path / "out.csv"
    write(out, [Prediction(path=name, status="failed", error=name, detector="d")])
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert not row["path"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert not row["error"].startswith(("=", "+", "-", "@"))
    assert [row["path"] for row in read(out)] == [name]


@pytest.mark.parametrize("form", FORMS)
def test_a_stopped_check_goes_on_with_all_its_columns(tmp_path, form):
    out = tmp_path / f"out.{form}"
    facts = {"status": "ok", "verdict": "real", "probability": 0.25, "logit": -1.0, "detector": "d+check"}
    made = [
        Prediction(path="a.png", spread=0.125, flipped="", **facts),
        Prediction(path="b.png", spread=0.5, flipped="jpeg:95 webp:90", **facts),
    ]
    for one in made:
        with suppress(KeyboardInterrupt), open_rows(out, check=True, resume=True) as (writer, done):
            kept = list(done)
            writer.write(one)
            if one is made[0]:
                raise KeyboardInterrupt
    assert kept == [made[0].row(check=True)]
    found = pq.read_table(out).to_pylist() if form == "parquet" else list(read_rows(out, check=True))
    assert found == [one.row(check=True) for one in made]


def test_a_reason_is_one_line_that_no_terminal_obeys():
    reason = Prediction(path="a", status="failed", error="odd:\x1b[31m\nx").row(check=False)["error"]
    assert reason == "odd:\\x1b[31m\\nx"


def test_a_row_is_in_the_file_at_once(tmp_path):
    out = tmp_path / "out.csv"
    with open_rows(out, check=False, resume=False) as (writer, _):
        writer.write(results(2)[0])
        assert [row["path"] for row in read_rows(out, check=False)] == [results(2)[0].path]


def test_other_programs_read_them(tmp_path):
    write(tmp_path / "out.csv", results(4))
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ['a "quoted", name.png', "'=1+1.png", "c.png", "0.png"]
    assert rows[1]["verdict"] == ""
    write(tmp_path / "out.jsonl", results(4))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [tuple(line) for line in lines] == [COLUMNS] * 4
    assert lines[1]["verdict"] is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("torn", ["", '{"path": "c.p', 'c.png,ok,re"'])
def test_a_stopped_run_goes_on_where_it_was(tmp_path, form, torn):
    out = tmp_path / f"out.{form}"
    with pytest.raises(KeyboardInterrupt):
        write(out, results(6), stop=3)
    with journal_of(out).open("a") as file:
        file.write(torn)
    assert form != "parquet" or not out.exists()
    assert len(write(out, results(6), resume=True)) == 3
    assert read(out) == [one.row(check=False) for one in results(6)]


def test_nothing_is_overwritten(tmp_path):
    out = tmp_path / "out.csv"
    write(out, results(3))
    before = out.read_bytes()
    with pytest.raises(SettingError, match="exists; go on with it by --resume"):
        write(out, results(3))
    assert out.read_bytes() == before
    done = tmp_path / "done.parquet"
    write(done, results(3))
    with pytest.raises(SettingError, match="complete"):
        write(done, results(3), resume=True)


def test_resuming_what_is_not_there_starts(tmp_path):
    out = tmp_path / "new.jsonl"
    assert write(out, results(3), resume=True) == []
    assert len(read(out)) == 3


def test_other_columns_and_foreign_files_are_refused(tmp_path):
    out = tmp_path / "out.csv"
    write(out, results(3))
    with pytest.raises(DataError, match="has the columns"):
        list(read_rows(out, check=True))
    for content in ('{"path": 1}\n', "x\n", "[" * 5000 + "\n", "x" * 3_000_000):
        (tmp_path / "odd.jsonl").write_text(content)
        with pytest.raises(DataError, match=r"odd\.jsonl holds a line"):
            list(read_rows(tmp_path / "odd.jsonl", check=False))
    values = results(1 + 1)[0].row(check=False) | {"logit": float("nan")}
    (tmp_path / "nan.jsonl").write_text(json.dumps(values) + "\n")
    with pytest.raises(DataError, match="holds a line"):
        list(read_rows(tmp_path / "nan.jsonl", check=False))


@pytest.mark.parametrize(
    ("name", "content"),
    [("odd.csv", b"a,b\n1,2"), ("odd.csv", b"\xff\xfe\n1"), ("odd.csv", b"x" * 200_000), ("odd.jsonl", b'{"a": 1}')],
)
def test_resuming_a_foreign_file_leaves_it_as_it_is(tmp_path, name, content):
    out = tmp_path / name
    out.write_bytes(content)
    with pytest.raises(DataError, match=r"odd\..* (holds|has the columns)"):
        write(out, results(3), resume=True)
    assert out.read_bytes() == content


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_foreign_file_of_one_long_line_is_not_held_in_memory(tmp_path, form):
    out = tmp_path / f"odd.{form}"
    with out.open("wb") as file:
        file.truncate(1 << 26)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"odd\..* (holds|has the columns)"):
        write(out, results(3), resume=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24
    assert out.stat().st_size == 1 << 26


def test_the_name_says_the_form(tmp_path):
    with pytest.raises(SettingError, match=r"\.csv, \.jsonl, \.parquet"):
        form_of(tmp_path / "out.xlsx")


def test_rows_that_are_not_the_beginning_of_the_images_are_refused():
    def rest(names, rows, detector="d"):
        items = map(Item, names)
        _pass_over(rows, items, detector)
        return [item.name for item in items]

    rows = [{"path": "a", "detector": "d"}, {"path": "b", "detector": "d"}]
    assert rest(["a", "b", "c"], rows) == ["c"]
    assert rest(["a", "b"], rows) == []
    with pytest.raises(DataError, match="row 2 is of 'b', but the image there is now 'c'"):
        rest(["a", "c"], rows)
    with pytest.raises(DataError, match="there is no such image"):
        rest(["a"], rows)
    with pytest.raises(DataError, match="row 1 was made by detector d, this is e"):
        rest(["a", "b"], rows, "e")
