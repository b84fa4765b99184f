"""Words of classes and splits where people put them: what is fake stays fake, and test images are never trained on."""

import zipfile

import miniatures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.cli import ltdpipe
from stages.scan.place import split_named
from stages.scan.run import run
from storage.errors import DataError


def scanned(root, layout="auto"):
    table, summary = run(corpus="mine", root=root, layout=layout)
    return {row["path"]: row for row in table.to_pylist()}, summary


def labels(rows):
    return {path: row["label"] for path, row in rows.items()}


def test_a_class_word_below_a_class_folder_is_a_category(tmp_path):
    fakes = ("fake/midjourney/painting/1.png", "fake/midjourney/photo/1.png", "fake/sdxl/nature/1.png")
    reals = ("real/cats/1.png", "real/synthetic/1.png", "real/generated/ai/1.png")
    miniatures.write(tmp_path, *fakes, *reals)
    rows, summary = scanned(tmp_path)
    assert labels(rows) == dict.fromkeys(fakes, 1) | dict.fromkeys(reals, 0)
    assert summary.sets == ("midjourney/painting", "midjourney/photo", "sdxl/nature")


@pytest.mark.parametrize("root", ["dalle", "progan", "Midjourney", "sd-turbo", "sd_xl"])
def test_so_it_is_in_the_layouts_of_benchmarks(tmp_path, root):
    miniatures.write(tmp_path, f"{root}/0_real/1.png", f"{root}/1_fake/photo/1.png", f"{root}/1_fake/painting/1.png")
    rows, _ = scanned(tmp_path)
    assert labels(rows) == {path: int("1_fake" in path) for path in rows}


def test_so_it_is_inside_archives(tmp_path):
    miniatures.write(tmp_path, "real/1.png")
    (tmp_path / "fake").mkdir()
    with zipfile.ZipFile(tmp_path / "fake" / "sdxl.zip", "w") as archive:
        archive.writestr("nature/1.png", b"x")
    assert labels(scanned(tmp_path)[0]) == {"real/1.png": 0, "fake/sdxl.zip!/nature/1.png": 1}


@pytest.mark.parametrize("path", ["photos/fake", "real/fake", "generated/real", "ai/nature", "1_fake/reals"])
def test_class_folders_that_contradict_each_other_are_an_error_that_shows_both(tmp_path, path):
    miniatures.write(tmp_path, "real/1.png", f"mine/{path}/1.png")
    outer, inner = path.split("/")
    for layout in ("folder", "auto"):
        with pytest.raises(
            DataError, match=rf"mine/{path}: the folder .*{inner if layout else outer}.* says"
        ) as failed:
            scanned(tmp_path, layout)
        assert outer in str(failed.value)
    assert scanned(tmp_path, "unlabelled")[1].unlabelled == 2


def test_a_row_that_contradicts_its_folder_is_an_error(tmp_path):
    (tmp_path / "fake").mkdir()
    image = pa.array([{"bytes": b"x", "path": "1.png"}])
    pq.write_table(pa.table({"image": image, "label": ["real"]}), tmp_path / "fake" / "rows.parquet")
    with pytest.raises(DataError, match="a row says real, and the folder 'fake' that it lies in says otherwise"):
        scanned(tmp_path, "community-forensics")


@pytest.mark.parametrize(
    ("split", "spelled"),
    [
        ("train", "train Training trainset train_set train2017 train-images trainval training_data"),
        ("val", "val valid validation dev val2014 validation_set dev-set VAL"),
        ("test", "test testing test_set test2017 tests eval evaluation holdout hold-out held_out test-dev test_a"),
        (None, "traintrack valley valentine device tester contest testament evaluator latest real extra 2017"),
    ],
)
def test_names_of_splits(split, spelled):
    assert {name: split_named(name) for name in spelled.split()} == dict.fromkeys(spelled.split(), split)


@pytest.mark.parametrize("test", ["testing", "test2017", "eval", "holdout"])
def test_a_test_split_by_any_name_is_not_trained_on(tmp_path, test):
    miniatures.write(tmp_path, *(f"{split}/{c}/1.png" for split in ("training", test) for c in ("real", "fake")))
    rows, summary = scanned(tmp_path)
    assert {row["split"] for path, row in rows.items() if path.startswith(test)} == {"test"}
    assert summary.sets == ("mine", "train/mine")
    assert "splits: test 2, train 2" in str(summary)


@pytest.mark.parametrize("other", ["quux/real", "quux/fake", "real", "more/fake/gan"])
def test_a_folder_in_no_split_beside_splits_is_an_error(tmp_path, other):
    miniatures.write(tmp_path, "train/real/1.png", "train/fake/1.png", "test/real/1.png", "test/fake/1.png")
    miniatures.write(tmp_path, f"{other}/1.png")
    with pytest.raises(DataError, match=rf"lies in a split and {other} in none"):
        scanned(tmp_path)


def test_without_any_split_the_summary_says_so(tmp_path):
    miniatures.write(tmp_path, "real/1.png", "fake/1.png")
    assert str(scanned(tmp_path)[1]).endswith("1 set: mine; no splits")


def test_a_split_of_one_class_alone_below_the_class_folder_is_none(tmp_path):
    miniatures.write(tmp_path, "real/val2017/1.png", "real/train2017/1.png", "fake/sdxl/1.png", "fake/dalle/1.png")
    rows, summary = scanned(tmp_path)
    assert {row["split"] for row in rows.values()} == {None}
    assert summary.sets == ("dalle", "sdxl")
    assert rows["real/val2017/1.png"]["sets"] == ["dalle", "sdxl"]


def test_splits_below_both_class_folders_count(tmp_path):
    parts = [f"{c}/{split}/1.png" for c in ("real", "fake/gan") for split in ("train", "test")]
    miniatures.write(tmp_path, *parts)
    rows, summary = scanned(tmp_path)
    assert {path: row["split"] for path, row in rows.items()} == {part: part.split("/")[-2] for part in parts}
    assert summary.sets == ("gan", "train/gan")
    miniatures.write(tmp_path, "fake/gan/extra/1.png")
    with pytest.raises(DataError, match="fake/gan/extra in none"):
        scanned(tmp_path)


def test_the_vehicle_train_is_a_category_beside_other_objects(tmp_path):
    for name in ("progan/airplane", "progan/train", "mygen"):
        miniatures.write(tmp_path, f"{name}/0_real/1.png", f"{name}/1_fake/1.png")
    rows, summary = scanned(tmp_path)
    assert {row["split"] for row in rows.values()} == {None}
    assert summary.sets == ("mygen", "progan/airplane", "progan/train")


@pytest.mark.parametrize(
    "folders",
    [
        "real_vs_fake/real-vs-fake/train/real real_vs_fake/real-vs-fake/train/fake",
        "cat/real cat/fake dog/real dog/fake",
        "train/0_real train/1_fake",
        "train/cat/real train/cat/fake",
    ],
)
def test_common_words_alone_are_no_benchmark(tmp_path, folders):
    miniatures.write(tmp_path, *(f"{folder}/1.png" for folder in folders.split()))
    rows, summary = scanned(tmp_path)
    assert summary.layout == "folder"
    assert "progan" not in {row["generator"] for row in rows.values()}


def test_a_folder_without_images_is_named(tmp_path):
    miniatures.write(tmp_path, "real/1.png", "fake/sdxl/1.png")
    (tmp_path / "fake" / "dalle").mkdir()
    (tmp_path / "fake" / "flux").mkdir()
    (tmp_path / "fake" / "flux" / "notes.txt").write_text("later")
    done = CliRunner().invoke(ltdpipe, ["scan", str(tmp_path), "--out", str(tmp_path / "m.parquet")])
    assert "2 folder(s) hold no image: fake/dalle, fake/flux" in done.stderr


@pytest.mark.parametrize("name", ["@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".x"])
def test_folders_that_systems_make_are_left_out_and_counted(tmp_path, name):
    miniatures.write(tmp_path, "real/1.png", "fake/1.png", f"fake/{name}/1.png", f"{name}/1.png")
    rows, summary = scanned(tmp_path)
    assert sorted(rows) == ["fake/1.png", "real/1.png"]
    assert sum(summary.skipped.values()) == 2
