"""Corpora named by a CSV or Parquet file."""

from pathlib import Path

import miniatures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.scan.run import run
from storage.errors import DataError

FIELD = Path(__file__).parents[2] / "data" / "field"


def listed(tmp_path, *lines, name="list.csv", **options):
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    table, summary = run(corpus="mini", root=tmp_path / name, layout="auto", **options)
    return {row["path"]: row for row in table.to_pylist()}, summary


@pytest.fixture
def images(tmp_path):
    miniatures.write(tmp_path, "p/1.jpg", "p/2.jpg", "f/a.b.png")
    miniatures.pack(tmp_path / "f.zip", {"x/1.png": miniatures.picture("zipped")})
    return tmp_path


def test_sets_generators_splits_and_members_of_archives(images):
    rows, summary = listed(
        images,
        "path,label,generator,split,set,note",
        "p/1.jpg,real,,test,dalle;midjourney,007",
        "f/a.b.png,1,dalle,test,dalle,",
        "f.zip!/x/1.png,FAKE,mid.journey,validation,midjourney,",
    )
    assert summary.layout == "list"
    assert "columns path and label" in summary.decided
    assert rows["p/1.jpg"]["sets"] == ["dalle", "midjourney"]
    assert rows["f/a.b.png"]["generator"] == "dalle"
    assert (rows["f.zip!/x/1.png"]["split"], rows["f.zip!/x/1.png"]["sets"]) == ("val", ["val/midjourney"])


def test_reals_without_a_set_are_in_all(images):
    rows, _ = listed(images, "path\tlabel\tgenerator", "p/1.jpg\t0\t", "f/a.b.png\t1\ta", name="list.tsv")
    assert rows["p/1.jpg"]["sets"] == ["a"]
    rows, _ = listed(images, "path,label,set", "p/1.jpg,0,", "f/a.b.png,1,s")
    assert rows["p/1.jpg"]["sets"] == rows["f/a.b.png"]["sets"] == ["s"]


def test_an_image_on_several_lines_is_one_image_of_several_sets(images):
    rows, _ = listed(images, "path,label,set", "p/1.jpg,0,a", "p/1.jpg,0,b", "f/a.b.png,1,a")
    assert rows["p/1.jpg"]["sets"] == ["a", "b"]


def test_a_single_set_names_the_generator_and_several_do_not(images):
    rows, _ = listed(images, "path,label,set", "p/1.jpg,1,a", "p/2.jpg,1,a;b", "f/a.b.png,0,")
    assert [rows[path]["generator"] for path in ("p/1.jpg", "p/2.jpg", "f/a.b.png")] == ["a", None, None]
    assert rows["f/a.b.png"]["sets"] == ["a", "b"]


def test_parquet_list_with_a_list_of_sets(images):
    table = pa.table({"path": ["p/1.jpg", "f/a.b.png"], "label": [0, 1], "set": [["a", "b"], ["a"]]})
    pq.write_table(table, images / "list.parquet")
    manifest, summary = run(corpus="mini", root=images / "list.parquet", layout="auto")
    assert summary.layout == "list"
    assert manifest["sets"].to_pylist() == [["a"], ["a", "b"]]


def test_shared_reals_below_the_second_root(images):
    rows, _ = listed(images / "f", "path,label,generator", "a.b.png,1,a", reals=images / "p")
    assert rows["@reals/1.jpg"]["sets"] == ["a"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["picture,label", "p/1.jpg,0"], "lacks the column path; it has picture, label"),
        (["path,label", "p/1.jpg,maybe"], "line 2: label 'maybe' says neither real nor synthetic"),
        (["path,label", "p/1.jpg,"], "line 2: label"),
        (["path,label", "/etc/1.jpg,0"], "line 2: path '/etc/1.jpg' does not lie below"),
        (["path,label", "p/../../p/1.jpg,0"], "does not lie below"),
        (["path,label", "C:\\p\\1.jpg,0"], "does not lie below"),
        (
            ["path,label", "f.zip!/x/2.png,1"],
            r"names f.zip!/x/2.png \(line 2\), and no file",
        ),
        (["path,label", "p/1.jpg,0", "p/1.jpg,1"], "lines 2 and 3 both name 'p/1.jpg'"),
        (["path,label", "@reals/1.jpg,1"], "lies below the root of the shared real images and is listed as synthetic"),
        (["path,label,split", "p/1.jpg,0,quux"], "split 'quux' is not known"),
        (["path,label", "p/1.jpg,0,more"], "line 2: 3 values, expected 2"),
    ],
)
def test_a_list_that_is_wrong_is_refused_by_line(images, lines, message):
    with pytest.raises(DataError, match=message):
        listed(images, *lines)


def test_one_file_has_one_identity_however_a_list_spells_it(images):
    spellings = ["p/1.jpg", "./p/1.jpg", "p//1.jpg", "p/./1.jpg", "f/../p/1.jpg", "p\\1.jpg", ".\\p\\1.jpg"]
    for spelling in spellings:
        rows, _ = listed(images, "path,label,set", "p/1.jpg,0,a", f"{spelling},0,b", "f/a.b.png,1,a")
        assert rows["p/1.jpg"]["sets"] == ["a", "b"]
        assert len(rows) == 2
        with pytest.raises(DataError, match=r"lines 2 and 4 both name 'p/1.jpg'"):
            listed(images, "path,label", "p/1.jpg,0", "f/a.b.png,1", f"{spelling},1")


def test_a_member_of_an_archive_and_a_row_of_a_parquet_file_have_one_identity(images):
    pq.write_table(pa.table({"image": [miniatures.picture("row")]}), images / "r.parquet")
    for first, second in (
        ("f.zip!/x/1.png", "f.zip!/x/./1.png"),
        ("f.zip!/x/1.png", "f.zip!\\x\\1.png"),
        ("r.parquet!/00000000", "r.parquet!/00000000/a.png"),
    ):
        with pytest.raises(DataError, match="lines 2 and 3 both name"):
            listed(images, "path,label", f"{first},0", f"{second},1")


def test_a_backslash_in_the_name_of_a_file_is_no_folder(images):
    (images / "p" / "a\\b.jpg").write_bytes(miniatures.picture("b"))
    rows, _ = listed(images, "path,label", "p/a\\b.jpg,0", "p\\1.jpg,1")
    assert sorted(rows) == ["p/1.jpg", "p/a\\\\b.jpg"]


def test_the_lines_of_a_list_are_counted_as_an_editor_does(images):
    with pytest.raises(DataError, match="lines 3 and 6 both name"):
        listed(images, "path,label,note", "", 'p/1.jpg,0,"two', 'lines"', "", "p/1.jpg,1,")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": [0, 1, 1], "generator": [None, 1, 2]}, [None, "1", "2"]),
        ({"label": [0.0, 1.0, 1.0], "generator": [float("nan"), 1.0, 2.5]}, [None, "1", "2.5"]),
        ({"label": ["real", "fake", "fake"], "set": [None, 1, 2]}, [None, "1", "2"]),
        ({"label": [False, True, True], "set": [[1], [1], [2]]}, [None, "1", "2"]),
        (
            {"label": pa.array(["0", "1", "1"]).dictionary_encode(), "generator": ["x", "a;b", ""]},
            [None, "a;b", "mini"],
        ),
    ],
)
def test_columns_of_other_programs_are_read_by_value(images, columns, expected):
    pq.write_table(pa.table({"path": ["p/1.jpg", "p/2.jpg", "f/a.b.png"], **columns}), images / "list.parquet")
    table, _ = run(corpus="mini", root=images / "list.parquet", layout="list")
    rows = {row["path"]: row for row in table.to_pylist()}
    assert [rows[path]["label"] for path in ("p/1.jpg", "p/2.jpg", "f/a.b.png")] == [0, 1, 1]
    assert [rows[path]["generator"] for path in ("p/1.jpg", "p/2.jpg", "f/a.b.png")] == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["p/1.jpg"], "label": [float("nan")]}, "line 1: label '' says neither"),
        ({"path": ["p/1.jpg"], "label": [{"class": 1}]}, r"line 1: label \{'class': 1\} is neither text nor a number"),
        ({"path": ["p/1.jpg"], "label": [1], "generator": [["a"]]}, r"line 1: generator \['a'\] is neither"),
        ({"path": [3], "label": [1]}, "line 1: path 3 does not lie below"),
        ({"path": pa.array([], pa.string()), "label": pa.array([], pa.int8())}, "names no image"),
    ],
)
def test_parquet_lists_with_other_values_are_refused_in_one_line(images, columns, message):
    pq.write_table(pa.table(columns), images / "list.parquet")
    with pytest.raises(DataError, match=message) as caught:
        run(corpus="mini", root=images / "list.parquet", layout="list")
    assert "\n" not in str(caught.value)


def test_doubled_columns_and_lists_without_a_line_are_refused(images):
    for lines, message in (
        (["path,label,label", "p/1.jpg,0,1"], "more than one column label"),
        (["path,label,path", "p/1.jpg,0,p/1.jpg"], "more than one column path"),
        (["path,label"], "names no image"),
        ([], "lacks the column path and label; it has none"),
        (["path,label", '"p/1.jpg,0'], "cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            listed(images, *lines)
    rows, _ = listed(images, "path,label,note,note", "p/1.jpg,0,x,y")  # what is not read may be there twice
    assert list(rows) == ["p/1.jpg"]
    table = pa.table([["p/1.jpg"], ["real"], ["fake"]], names=["path", "label", "label"])
    pq.write_table(table, images / "list.parquet")
    with pytest.raises(DataError, match="more than one column label"):
        run(corpus="mini", root=images / "list.parquet", layout="auto")


def test_a_damaged_archive_in_a_list_is_one_failed_image(images):
    (images / "f.zip").write_bytes(b"no zip file")
    rows, summary = listed(images, "path,label", "p/1.jpg,0", "f.zip!/x/1.png,1", "f.zip!/x/2.png,1", "p/2.jpg,1")
    assert sorted(rows) == ["f.zip", "p/1.jpg", "p/2.jpg"]
    assert rows["f.zip"]["sets"] == []
    assert "1 archive(s) cannot be read, each is one failed image: f.zip (" in summary.warnings[0]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("list-spellings/alias.csv", "lines 2 and 8 both name 'img/real/0.png'"),
        ("list-columns/dupcol.csv", "more than one column label"),
    ],
)
def test_lists_from_the_field_that_are_refused(file, message):
    with pytest.raises(DataError, match=message):
        run(corpus="mini", root=FIELD / file, layout="auto")


def test_generators_that_are_numbers():
    table, _ = run(corpus="mini", root=FIELD / "list-columns" / "intgen.parquet", layout="auto")
    stated = pq.read_table(FIELD / "list-columns" / "intgen.parquet").to_pylist()
    expected = {row["path"]: str(row["generator"]) if row["label"] in (1, "1", "fake") else None for row in stated}
    assert dict(zip(table["path"].to_pylist(), table["generator"].to_pylist(), strict=True)) == expected
