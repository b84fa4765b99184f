"""Labels and splits are read rightly or refused: class words and split words in unusual places, and folders twice."""

import unicodedata
from pathlib import Path

import miniatures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.scan.classes import split_word
from stages.scan.run import run
from storage.errors import DataError

FIELD = Path(__file__).parents[2] / "data" / "field"


def scanned(root, layout="auto", **options):
    """Return folder -> (label, split, sets) of the images, and the summary."""
    table, summary = run(corpus="mini", root=root, layout=layout, **options)
    rows = table.to_pylist()
    return {row["path"].rpartition("/")[0]: (row["label"], row["split"], row["sets"]) for row in rows}, summary


def labels(root, layout="auto"):
    return {place: label for place, (label, _, _) in scanned(root, layout)[0].items()}


def refusal(root, layout="auto"):
    with pytest.raises(DataError) as caught:
        run(corpus="mini", root=root, layout=layout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_class_word_below_a_class_folder_is_a_style():
    assert labels(FIELD / "class-words" / "c2") == {
        "fake/midjourney/painting": 1,
        "fake/midjourney/photo": 1,
        "fake/sdxl/nature": 1,
        "real/cats": 0,
        "real/synthetic": 0,
    }
    found = labels(FIELD / "class-words" / "s1")
    assert (found["dalle/1_fake/photo"], found["dalle/1_fake/painting"], found["dalle/0_real"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("layout", "path", "label"),
    [
        ("forensynths", "progan/car/1_fake/photo/1.png", 1),
        ("forensynths", "test/progan/nature/1_fake/1.png", 1),
        ("forensynths", "test/biggan/0_real/generated/1.png", 0),
        ("ufd", "laion/0_real/ai/1.png", 0),
        ("ufd", "guided/1_fake/natural/1.png", 1),
        ("genimage", "ADM/val/1_fake/nature/1.png", 1),
        ("genimage", "ADM/val/nature/real/1.png", 0),
        ("drct-2m", "sd-turbo/val/1_fake/photo/1.png", 1),
        ("drct-2m", "0_real/sd-turbo/val2017/1.png", 0),
        ("aigcdetect", "progan/photo/1_fake/1.png", 1),
        ("chameleon", "test/1_fake/photos/1.png", 1),
        ("community-forensics", "dcgan/fake/photo/1.png", 1),
        ("folder", "photo/1_fake/x/1.png", 1),
        ("folder", "sdxl/FAKE/Nature/1.png", 1),
    ],
)
def test_the_class_folder_counts_in_every_layout(tmp_path, layout, path, label):
    miniatures.write(tmp_path, path)
    assert list(labels(tmp_path, layout).values()) == [label]


def test_class_words_in_archives_count_as_folders(tmp_path):
    content = miniatures.picture("x")
    miniatures.pack(tmp_path / "1_fake.zip", {"photo/1.png": content})
    miniatures.pack(tmp_path / "fake" / "sdxl.zip", {"nature/1.png": content})
    miniatures.pack(tmp_path / "all.zip", {"fake/photo/1.png": content, "real/ai/1.png": content})
    assert labels(tmp_path) == {
        "1_fake.zip!/photo": 1,
        "fake/sdxl.zip!/nature": 1,
        "all.zip!/fake/photo": 1,
        "all.zip!/real/ai": 0,
    }


@pytest.mark.parametrize(
    "path", ["fake/sdxl/real", "real/fake", "ai/photo", "photo/fake", "1_fake/a/0_real", "fake/0_real"]
)
def test_two_class_folders_that_contradict_each_other_are_refused(tmp_path, path):
    miniatures.write(tmp_path, f"{path}/1.png", "real/1.png")
    said = refusal(tmp_path)
    assert path in said
    assert all(repr(name) in said for name in (path.split("/")[0], path.split("/")[-1]))
    assert refusal(tmp_path, "folder") == said


@pytest.mark.parametrize("path", ["fake/real.zip!/1.png", "real.zip!/fake/1.png"])
def test_an_archive_may_contradict_its_folder_too(tmp_path, path):
    archive, member = path.split("!/")
    miniatures.pack(tmp_path / archive, {member: miniatures.picture("x")})
    assert "one says real and the other synthetic" in refusal(tmp_path)


@pytest.mark.parametrize("layout", ["auto", "folder", "community-forensics"])
def test_a_parquet_file_may_not_contradict_its_folder(tmp_path, layout):
    (tmp_path / "sdxl" / "fake").mkdir(parents=True)
    rows = pa.table({"image": [b"a", b"b"], "label": ["fake", "real"]})
    pq.write_table(rows, tmp_path / "sdxl" / "fake" / "rows.parquet")
    assert "lies in a folder 'fake', and says of 1 image(s) that they are real" in refusal(tmp_path, layout)


@pytest.mark.parametrize("path", ["glide/RAISE/1.png", "1_fake/raise/1.png"])
def test_a_folder_of_synthbuster_is_not_real_by_a_name_on_its_path(tmp_path, path):
    miniatures.write(tmp_path, path)
    assert path.rpartition("/")[0] in refusal(tmp_path, "synthbuster")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Training", "train2017", "train_set", "trainset", "train-images")),
        *(
            (name, "train")
            for name in ("training_data", "images_train", "trainval", "train_val", "split=train", "Train_A")
        ),
        *((name, "val") for name in ("val", "valid", "validation", "val2014", "val_set", "dev", "dev-set", "minival")),
        *(
            (name, "test")
            for name in ("test", "testing", "test_set", "testset", "test2017", "test-dev", "test_A", "TEST1")
        ),
        *(
            (name, "test")
            for name in ("eval", "evaluation", "holdout", "hold-out", "held_out", "public_test", "test (2)")
        ),
        *(
            (name, None)
            for name in ("flux-dev", "testament", "trained-gan", "train_test", "devil", "unlabeled2017", "")
        ),
        *((name, None) for name in ("value", "latest", "quux", "contest", "test_generators", "evaluator", "2017", "a")),
    ],
)
def test_names_of_splits(name, split):
    assert split_word(name) == split


def test_testing_is_no_part_of_training():
    found, summary = scanned(FIELD / "split-words" / "c7")
    assert {place: split for place, (_, split, _) in found.items()} == {
        "training/real": "train",
        "training/fake": "train",
        "testing/real": "test",
        "testing/fake": "test",
    }
    assert summary.sets == ("mini", "train/mini")


@pytest.mark.parametrize("name", ["test_set", "test2017", "eval", "evaluation", "Dev", "val2014", "holdout"])
@pytest.mark.parametrize("layout", ["folder", "genimage", "aigcdetect", "chameleon"])
def test_images_of_no_layout_slip_into_training_by_the_name_of_their_split(tmp_path, name, layout):
    above = {"genimage": "ADM/inner/", "aigcdetect": "progan/"}.get(layout, "")
    paths = [f"{above}{split}/{kind}/1.png" for split in ("train", name) for kind in ("0_real", "1_fake")]
    miniatures.write(tmp_path, *paths)
    found, _ = scanned(tmp_path, layout)
    assert {split for place, (_, split, _) in found.items() if place.startswith(f"{above}{name}")} <= {"val", "test"}


@pytest.mark.parametrize(
    "names", [("train", "quux"), ("test", "sdxl"), ("train", ""), ("training", "test_generators"), ("val", "holiday2")]
)
def test_a_name_of_no_split_beside_one_is_refused(tmp_path, names):
    miniatures.write(tmp_path, *(f"{name}/{kind}/1.png".lstrip("/") for name in names for kind in ("real", "fake")))
    said = refusal(tmp_path)
    assert "is of no split" in said
    assert all(name in said for name in names)


def test_a_list_with_and_without_splits_is_refused(tmp_path):
    miniatures.write(tmp_path, "1.png", "2.png")
    (tmp_path / "list.csv").write_text("path,label,split\n1.png,0,train\n2.png,1,\n")
    assert "2.png below" in refusal(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("path,label,split\n1.png,0,Training\n2.png,1,test_set\n")
    assert scanned(tmp_path / "list.csv")[1].sets == ("mini", "train/mini")


def test_parquet_files_are_of_the_split_of_their_folder(tmp_path):
    for name in ("train", "testing"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table({"image": [b"a", b"b"], "label": [0, 1]}), tmp_path / name / "0001.parquet")
    found, _ = scanned(tmp_path)
    assert {split for _, split, _ in found.values()} == {"train", "test"}
    (tmp_path / "testing" / "0001.parquet").rename(tmp_path / "testing" / "train-00000-of-00001.parquet")
    assert "its rows are of the split 'train', but its folder is that of 'test'" in refusal(tmp_path)


def test_shards_above_class_folders_are_of_the_split_in_their_name(tmp_path):
    members = {f"{kind}/1.png": miniatures.picture(kind) for kind in ("real", "fake")}
    for name in ("train-000001.zip", "test-000001.zip"):
        miniatures.pack(tmp_path / name, members)
    found, _ = scanned(tmp_path)
    assert {(place[:4], split) for place, (_, split, _) in found.items()} == {("trai", "train"), ("test", "test")}


def test_a_split_word_below_one_class_folder_is_no_split():
    found, summary = scanned(FIELD / "split-below-class" / "k1")
    assert found == {"real/val2017": (0, None, ["sdxl"]), "fake/sdxl": (1, None, ["sdxl"])}
    assert not summary.warnings


@pytest.mark.parametrize("layout", ["auto", "forensynths"])
def test_the_vehicle_beside_other_categories_is_no_split(layout):
    root = FIELD / "split-below-class" / "k2"
    found, summary = scanned(root if layout == "auto" else root / "progan", layout)
    assert {split for _, split, _ in found.values()} == {None}
    if layout == "auto":
        assert summary.sets == ("mygen", "progan/airplane", "progan/train")


def test_splits_below_both_class_folders_are_splits(tmp_path):
    miniatures.write(tmp_path, *(f"{place}/{name}/1.png" for place in ("real", "fake/x") for name in ("train", "eval")))
    found, _ = scanned(tmp_path)
    assert found == {
        "real/train": (0, "train", ["train/x"]),
        "real/eval": (0, "test", ["x"]),
        "fake/x/train": (1, "train", ["train/x"]),
        "fake/x/eval": (1, "test", ["x"]),
    }
    miniatures.write(tmp_path, "fake/y/1.png")
    assert "fake/y is not" in refusal(tmp_path)


def test_splits_below_the_synthetic_images_alone_are_refused(tmp_path):
    miniatures.write(tmp_path, "real/1.png", "fake/train/1.png", "fake/test/1.png")
    assert "put the folders of the splits above those of the classes" in refusal(tmp_path)


def test_genimage_with_splits_below_its_classes(tmp_path):
    miniatures.write(tmp_path, *(f"ADM/{kind}/{name}/1.png" for kind in ("ai", "nature") for name in ("train", "val")))
    found, _ = scanned(tmp_path, "genimage")
    assert found["ADM/ai/train"] == (1, "train", ["train/adm"])
    assert found["ADM/nature/val"] == (0, "val", ["adm"])


def test_shared_reals_of_a_split_serve_a_corpus_without_any(tmp_path):
    miniatures.write(tmp_path, "root/fake/sdxl/1.png", "coco/val2017/1.jpg")
    found, summary = scanned(tmp_path / "root", "folder", reals=tmp_path / "coco")
    assert found["@reals/val2017"] == (0, None, ["sdxl"])
    assert not summary.warnings


def test_other_images_of_coco_do_not_become_the_test_split_of_drct(tmp_path):
    miniatures.write(tmp_path, "root/sd-turbo/val2017/1.png", "coco/val2017/1.jpg", "coco/test2017/1.jpg")
    found, summary = scanned(tmp_path / "root", "drct-2m", reals=tmp_path / "coco")
    assert found["root/sd-turbo/val2017".removeprefix("root/")] == (1, "val", ["sd-turbo"])
    assert summary.skipped == {"shared real image outside train2017 and val2017": 1}


@pytest.mark.parametrize(
    "above",
    ["real_vs_fake/real-vs-fake/train", "real-vs-fake/train", "train", "cat", "person", "valid/dog"],
)
def test_anyones_two_classes_are_no_benchmark(tmp_path, above):
    miniatures.write(tmp_path, f"{above}/real/1.jpg", f"{above}/fake/1.jpg")
    found, summary = scanned(tmp_path)
    assert summary.layout == "folder"
    assert not {"progan", "train/progan"} & set(summary.sets)
    assert found[f"{above}/fake"][0] == 1


def test_without_splits_the_summary_says_what_training_does(tmp_path):
    miniatures.write(tmp_path, "a/real/1.png", "a/fake/1.png", "b/train/real/1.png", "b/train/fake/1.png", "c/1.png")
    said = [str(scanned(tmp_path / name)[1]) for name in "abc"]
    assert "no split: if `train_on` names this corpus, all its images" in said[0]
    assert "no split" not in said[1] + said[2]


@pytest.mark.parametrize(
    ("layout", "written", "empty"),
    [
        ("folder", ["real/1.png", "fake/dalle/1.png"], "fake/sdxl"),
        ("folder", ["dalle/real/1.png", "dalle/fake/1.png"], "sdxl"),
        ("drct-2m", ["sd-turbo/val2017/1.png"], "sdxl-turbo"),
        ("forensynths", ["progan/car/0_real/1.png", "progan/car/1_fake/1.png"], "biggan/1_fake"),
    ],
)
def test_a_folder_of_a_generator_without_images_is_named(tmp_path, layout, written, empty):
    miniatures.write(tmp_path, *written)
    (tmp_path / empty).mkdir(parents=True)
    assert f"no image in {empty}: missing from the corpus" in scanned(tmp_path, layout)[1].warnings
    (tmp_path / empty / "notes.txt").write_text("x")
    (tmp_path / empty.split("/")[0] / ".cache").mkdir(exist_ok=True)
    assert f"no image in {empty}: missing from the corpus" in scanned(tmp_path, layout)[1].warnings


def test_folders_that_systems_make_are_passed_over(tmp_path):
    systems = [
        "@eaDir",
        ".Trash-1000",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "__MACOSX",
        "#recycle",
    ]
    systems += [".ipynb_checkpoints", ".thumbnails", ".snapshot"]
    miniatures.write(tmp_path, "real/1.png", "fake/1.png", *(f"real/{name}/1.png" for name in systems))
    miniatures.write(tmp_path, "@eaDir/fake/1.png")
    found, summary = scanned(tmp_path)
    assert set(found) == {"real", "fake"}
    assert summary.skipped == {"hidden": len(systems) + 1}
    miniatures.pack(tmp_path / "more.zip", {"fake/a/@eaDir/1.png": b"x", "fake/a/1.png": b"x"})
    assert scanned(tmp_path)[1].skipped == {"hidden": len(systems) + 2}


@pytest.mark.parametrize(
    ("first", "second"),
    [("real", "Real"), ("fake/SDXL", "fake/sdxl"), ("fake/caf\u00e9", unicodedata.normalize("NFD", "fake/caf\u00e9"))],
)
def test_folders_whose_names_look_the_same_are_named(tmp_path, first, second):
    miniatures.write(tmp_path, "real/1.png", "fake/x/1.png", f"{first}/a.png", f"{second}/b.png")
    if len(list((tmp_path / first).parent.iterdir())) < 2:
        pytest.skip("the file system does not tell these names apart")
    found, summary = scanned(tmp_path)
    assert {first, second} <= set(found)
    names = " and ".join(sorted((first, second)))
    assert next(line for line in summary.warnings if "differ in case or Unicode form" in line).startswith(names)


def test_a_class_folder_may_be_a_link_but_not_to_the_other_class(tmp_path):
    miniatures.write(tmp_path, "photographs/1.png", "root/fake/1.png")
    (tmp_path / "root" / "real").symlink_to(tmp_path / "photographs")
    assert labels(tmp_path / "root") == {"real": 0, "fake": 1}
    (tmp_path / "root" / "0_real").symlink_to(tmp_path / "photographs")
    assert scanned(tmp_path / "root")[1].warnings[-1] == (
        "0_real and real are one folder by a link: its images are listed twice"
    )
    (tmp_path / "root" / "1_fake").symlink_to(tmp_path / "photographs")
    assert "0_real and 1_fake are one folder" in refusal(tmp_path / "root")
