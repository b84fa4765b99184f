"""Corpora named by a CSV or Parquet file, as people bring them."""

import miniatures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from miniatures import FIELD, refusal, scanned


def listed(tmp_path, *lines, name="list.csv", **options):
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return scanned(tmp_path / name, **options)


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


@pytest.mark.parametrize(
    ("lines", "sets", "generators"),
    [
        (["path,label,generator", "p/1.jpg,0,", "f/a.b.png,1,a"], ["a", "a"], [None, "a"]),
        (["path,label,set", "p/1.jpg,0,", "f/a.b.png,1,s"], ["s", "s"], [None, "s"]),
        (["path,label,set", "p/1.jpg,0,a", "p/1.jpg,0,b", "f/a.b.png,1,a"], ["a b", "a"], [None, "a"]),
        (["path,label,set", "p/1.jpg,0,", "f/a.b.png,1,a;b"], ["a b", "a b"], [None, None]),
    ],
)
def test_sets_of_images(images, lines, sets, generators):
    rows, _ = listed(images, *lines)
    assert [" ".join(rows[path]["sets"]) for path in ("p/1.jpg", "f/a.b.png")] == sets
    assert [rows[path]["generator"] for path in ("p/1.jpg", "f/a.b.png")] == generators


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "\ufeffPath;Label\r\np/1.jpg;0\r\nf/a.b.png;1\r\n"),
        ("list.tsv", "label\tpath\n0\tp/1.jpg\n1\tf/a.b.png\n"),
        ("list.csv", "Image,Class,note\np/1.jpg,Real,a;b\nf/a.b.png,AI,c;d;e\n"),
        ("list.csv", "file,is_fake\np/1.jpg,False\nf/a.b.png,True\n"),
        ("list.csv", "Filepath,y\np\\1.jpg,0\nf\\a.b.png,1\n"),
        ("list.csv", "p/1.jpg,0\nf/a.b.png,1\n"),
        ("list.csv", "img,label\nROOT/p/1.jpg,0\nROOT/f/./a.b.png,1\n"),
    ],
)
def test_lists_as_other_programs_write_them(images, name, text):
    (images / name).write_bytes(text.replace("ROOT", str(images)).encode())
    rows, summary = scanned(images / name)
    assert {path: (row["label"], row["generator"]) for path, row in rows.items()} == {
        "p/1.jpg": (0, None),
        "f/a.b.png": (1, "mini"),
    }
    assert not summary.skipped


def test_a_missing_file_is_named_and_left_out(images):
    rows, summary = listed(images, "path,label", "p/1.jpg,0", "p/9.jpg,0", "f.zip!/x/9.png,1", "f/a.b.png,1")
    assert sorted(rows) == ["f/a.b.png", "p/1.jpg"]
    assert summary.skipped == {"missing file(s)": 2}
    assert summary.warnings == (
        "2 file(s) of the list do not exist and were left out: p/9.jpg (line 3), f.zip!/x/9.png (line 4)",
    )
    refusal(images / "list.csv", r"p/9.jpg \(line 3\), .* \(--strict\)", strict=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["picture,label", "p/1.jpg,0"], "lacks the column path; it has picture, label"),
        (["path,label", "p/1.jpg,maybe"], "line 2: label 'maybe' says neither real nor synthetic"),
        (["path,label", "/etc/1.jpg,0"], "line 2: path '/etc/1.jpg' does not lie below"),
        (["path,label", "f.zip!/x/2.png,1"], r"names f.zip!/x/2.png \(line 2\), and no file that it names exists"),
        (["path,label", "p/1.jpg,0", "p/1.jpg,1"], "lines 2 and 3 both name 'p/1.jpg'"),
        (["path,label", "@reals/1.jpg,1"], "lies below the root of the shared real images and is listed as synthetic"),
        (["path,label,split", "p/1.jpg,0,quux"], "split 'quux' is not known"),
        (["path,label,split", "p/1.jpg,0,train", "p/2.jpg,1,"], "p/2.jpg below .* is of no split, but p/1.jpg"),
        (["path,label", "p/1.jpg,0,more"], "line 2: 3 values, expected 2"),
        (["path,label,label", "p/1.jpg,0,1"], "more than one column label"),
    ],
)
def test_a_list_that_is_wrong_is_refused_by_line(images, lines, message):
    (images / "list.csv").write_text("".join(f"{line}\n" for line in lines))
    refusal(images / "list.csv", message)


def test_one_file_has_one_identity_however_a_list_spells_it(images):
    pq.write_table(pa.table({"image": [miniatures.picture("row")]}), images / "r.parquet")
    for first, *others in (
        ("p/1.jpg", "./p/1.jpg", "p//1.jpg", "f/../p/1.jpg", "p\\1.jpg", ".\\p\\1.jpg", f"{images}/p/1.jpg"),
        ("f.zip!/x/1.png", "f.zip!/x/./1.png", "f.zip!\\x\\1.png"),
        ("r.parquet!/00000000", "r.parquet!/00000000/a.png"),
    ):
        for other in others:
            rows, _ = listed(images, "path,label,set", f"{first},0,a", f"{other},0,b", "f/a.b.png,1,a")
            assert rows[first]["sets"] == ["a", "b"]
            assert len(rows) == 2
            (images / "list.csv").write_text(f"path,label\n{first},0\nf/a.b.png,1\n{other},1\n")
            refusal(images / "list.csv", f"lines 2 and 4 both name '{first}'")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": [0.0, 1.0, 1.0], "generator": [float("nan"), 1.0, 2.5]}, [None, "1", "2.5"]),
        ({"is_fake": [False, True, True], "set": [[1], [1], [2]]}, [None, "1", "2"]),
        (
            {"label": pa.array(["0", "1", "1"]).dictionary_encode(), "generator": ["x", "a;b", ""]},
            [None, "a;b", "mini"],
        ),
    ],
)
def test_columns_of_other_programs_are_read_by_value(images, columns, expected):
    paths = ["p/1.jpg", "p/2.jpg", "f/a.b.png"]
    pq.write_table(pa.table({"path": paths, **columns}), images / "list.parquet")
    rows, _ = scanned(images / "list.parquet")
    assert [rows[path]["label"] for path in paths] == [0, 1, 1]
    assert [rows[path]["generator"] for path in paths] == expected


def test_lists_from_the_field():
    refusal(FIELD / "list-spellings" / "alias.csv", "lines 2 and 8 both name 'img/real/0.png'")
    refusal(FIELD / "list-columns" / "dupcol.csv", "more than one column label")
    rows, _ = scanned(FIELD / "list-columns" / "intgen.parquet")
    stated = pq.read_table(FIELD / "list-columns" / "intgen.parquet").to_pylist()
    expected = {row["path"]: str(row["generator"]) if row["label"] in (1, "1", "fake") else None for row in stated}
    assert {path: row["generator"] for path, row in rows.items()} == expected
