"""Scores of detectors that are none of ours, from their own tables to the report."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_features import write_view

from planted import change_column
from stages.evaluate.external import run
from stages.evaluate.scores import read_scores
from storage.errors import DataError, LtdpipeError
from storage.features import FeatureTable


@pytest.fixture
def view(tmp_path):
    """Sixty images; every second one is real and in all three sets, the others are in one set each."""
    write_view(tmp_path / "clean")
    names = ("one", "two", "three")
    change_column(tmp_path / "clean", "sets", [[names[row % 3]] if row % 2 else names for row in range(60)])
    return tmp_path / "clean"


def rows_of(view):
    """Each image's path, sha256, label and a probability, as another detector might give it."""
    index = FeatureTable.open(view).index
    random = np.random.default_rng(0)
    for row in index.select(["path", "sha256", "label"]).to_pylist():
        yield row | {"prob": float(np.clip(random.normal(0.3 + 0.4 * row["label"], 0.2), 0.001, 0.999))}


def write(path, rows, delimiter=","):
    """Write rows as the file's suffix says."""
    names = list(rows[0])
    if path.suffix == ".csv":
        lines = [names, *([str(row[name]) for name in names] for row in rows)]
        path.write_text("\ufeff" + "\r\n".join(map(delimiter.join, lines)) + "\r\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def imported(view, tmp_path, reporter):
    def run_on(file, **options):
        out = tmp_path / "scores" / "clean.parquet"
        run(file=file, detector="other", features=view, out=out, reporter=reporter, **options)
        return read_scores(out)

    return run_on


@pytest.mark.parametrize(
    "table",
    [
        ("s.csv", lambda row: {"path": row["path"], "prob": row["prob"]}, ","),
        ("s.csv", lambda row: {"Image": "C:\\data\\" + row["path"].replace("/", "\\"), "Score": row["prob"]}, ";"),
        ("s.csv", lambda row: {"filename": row["path"].rpartition("/")[2], "label": 7, "prob": row["prob"]}, "\t"),
        ("s.jsonl", lambda row: {"file": "/home/x/" + row["path"], "prob": row["prob"]}, ""),
        ("s.parquet", lambda row: {"sha256": row["sha256"].upper(), "prob": row["prob"]}, ""),
    ],
    ids=["paths", "windows", "names", "absolute", "hashes"],
)
def test_rows_find_their_images_by_path_suffix_or_content(view, tmp_path, imported, reporter, table):
    name, spelled, delimiter = table
    rows = list(rows_of(view))
    scores = imported(write(tmp_path / name, [spelled(row) for row in reversed(rows)], delimiter))
    assert scores.path.tolist() == [row["path"] for row in rows]
    assert scores.label.tolist() == [row["label"] for row in rows]
    expected = [np.log(row["prob"] / (1 - row["prob"])) for row in rows]
    np.testing.assert_allclose(scores.logit, expected, rtol=1e-9)
    assert sorted(scores.members) == ["one", "three", "two"]
    assert (scores.card.head, scores.card.facts["external"]["images_without_score"]) == ("other", 0)
    assert reporter.notes == reporter.warnings == []


def test_what_does_not_match_is_counted_and_named_and_a_set_with_a_gap_is_not_scored(
    view, tmp_path, imported, reporter
):
    rows = [{"path": row["path"], "prob": row["prob"]} for row in rows_of(view)]
    table = FeatureTable.open(view).index
    lacking = next(row for row in table.to_pylist() if row["sets"] == ["two"])["path"]
    rows = [row for row in rows if row["path"] != lacking]
    rows += [{"path": "elsewhere/x.png", "prob": 0.5}, {"path": "png", "prob": 0.5}]
    scores = imported(write(tmp_path / "s.csv", rows))
    assert sorted(scores.members) == ["one", "three"]
    assert len(scores) == len(table) - 1
    assert "2 of 61 rows are of no image of the corpus, such as elsewhere/x.png, png" in reporter.notes
    assert any(note.startswith("set two: 1 of ") for note in reporter.notes)
    told = scores.card.facts["external"]
    assert (told["unmatched"], told["images_without_score"], told["incomplete_sets"]) == (2, 1, ["two"])


def test_a_name_of_several_images_is_ambiguous_and_the_longest_end_of_a_path_decides(tmp_path, reporter):
    write_view(tmp_path / "clean")
    paths = [f"{row % 2}/{row // 2}.png" for row in range(60)]
    paths[-2] = "29.png"  # the last one is 1/29.png
    change_column(tmp_path / "clean", "path", paths)
    rows = [{"path": path, "prob": 0.6} for path in paths if path not in {"0/3.png", "1/29.png"}]
    rows += [{"path": "3.png", "prob": 0.2}, {"path": "x/0/3.png", "prob": 0.4}, {"path": "x/1/29.png", "prob": 0.3}]
    file = write(tmp_path / "s.csv", rows)
    out = tmp_path / "out.parquet"
    run(file=file, detector="other", features=tmp_path / "clean", out=out, reporter=reporter)
    scores = read_scores(out)
    assert sorted(scores.path.tolist()) == sorted(paths)
    assert scores.path[scores.logit < 0].tolist() == ["0/3.png", "1/29.png"]
    assert reporter.notes[0] == "1 of 61 rows are of several images, such as 3.png"


def test_scores_the_other_way_round_are_warned_about_and_turned(view, tmp_path, imported, reporter):
    rows = [{"path": row["path"], "realness": 10 - 20 * row["prob"]} for row in rows_of(view)]
    file = write(tmp_path / "s.csv", rows)
    wrong = imported(file, column="realness", logits=True)
    assert "higher scores seem to say real; see --higher-is real" in reporter.warnings.pop()
    right = imported(file, column="realness", logits=True, higher_is="real")
    assert right.logit.tolist() == (-wrong.logit).tolist()
    assert not reporter.warnings


@pytest.mark.parametrize(
    "case",
    [
        (lambda rows: [*rows, rows[3]], {}, "has two rows for the image"),
        (lambda rows: [{"path": "x.png", "prob": 0.1}], {}, "none of its 1 rows is of an image"),
        (
            lambda rows: [{**row, "prob": 3 * row["prob"]} for row in rows],
            {},
            "add --logits where 0 divides the classes",
        ),
        (lambda rows: rows[2:], {}, r"2 of 60 images lack one, such as \S+, \S+: add"),
        (lambda rows: [{**row, "prob": "high"} for row in rows], {}, "holds what is no number"),
        (lambda rows: [{**row, "prob": "nan"} for row in rows], {}, "not finite"),
        (lambda rows: rows, {"column": "p"}, "expected a column 'p'; found path, prob"),
        (lambda rows: [{"prob": row["prob"]} for row in rows], {}, "expected a column of images and one of scores"),
    ],
    ids=["twice", "others", "range", "gap in all sets", "words", "nan", "column", "no images"],
)
def test_tables_that_cannot_be_used_end_in_one_line(view, tmp_path, imported, case):
    change, options, message = case
    rows = [{"path": row["path"], "prob": row["prob"]} for row in rows_of(view)]
    with pytest.raises(LtdpipeError, match=message):
        imported(write(tmp_path / "s.csv", change(rows)), **options)
    with pytest.raises(DataError, match="does not exist"):
        imported(tmp_path / "none.csv")
