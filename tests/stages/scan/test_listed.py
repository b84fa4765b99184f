"""Corpora named by a CSV or Parquet file."""

import miniatures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.scan.run import run
from storage.errors import DataError


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
        (["file,label", "p/1.jpg,0"], "lacks the column path; it has file, label"),
        (["path,label", "p/1.jpg,maybe"], "line 2: label 'maybe' says neither real nor synthetic"),
        (["path,label", "p/1.jpg,"], "line 2: label"),
        (["path,label", "/etc/1.jpg,0"], "line 2: path '/etc/1.jpg' does not lie below"),
        (["path,label", "p/../p/1.jpg,0"], "does not lie below"),
        (["path,label", "p/1.jpg,0", "p/9.jpg,0"], "names 'p/9.jpg', and .* does not exist"),
        (["path,label", "f.zip!/x/2.png,1"], "does not exist"),
        (["path,label", "p/1.jpg,0", "p/1.jpg,1"], "line 3: 'p/1.jpg' is listed before as something else"),
        (["path,label", "@reals/1.jpg,1"], "lies below the root of the shared real images and is listed as synthetic"),
        (["path,label,split", "p/1.jpg,0,quux"], "split 'quux' is not known"),
        (["path,label", "p/1.jpg,0,more"], "cannot be read"),
    ],
)
def test_a_list_that_is_wrong_is_refused_by_line(images, lines, message):
    with pytest.raises(DataError, match=message):
        listed(images, *lines)
