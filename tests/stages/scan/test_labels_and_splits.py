"""Class names and names of splits in unusual places are read rightly or refused, and folders listed twice are named."""

import unicodedata

import miniatures
import pytest
from miniatures import FIELD, labels, refusal, scanned

from stages.scan.classes import split_word


def placed(root, layout="auto", **options):
    """Folder -> (label, split, sets)."""
    rows, summary = scanned(root, layout, **options)
    found = {path.rpartition("/")[0]: (row["label"], row["split"], row["sets"]) for path, row in rows.items()}
    return found, summary


@pytest.mark.parametrize(
    ("layout", "path", "label"),
    [
        ("forensynths", "progan/car/1_fake/photo/1.png", 1),
        ("ufd", "laion/0_real/ai/1.png", 0),
        ("genimage", "ADM/val/1_fake/nature/1.png", 1),
        ("drct-2m", "0_real/sd-turbo/val2017/1.png", 0),
        ("aigcdetect", "progan/photo/1_fake/1.png", 1),
        ("chameleon", "test/1_fake/photos/1.png", 1),
        ("community-forensics", "dcgan/fake/photo/1.png", 1),
        ("folder", "photo/1_fake/x/1.png", 1),
    ],
)
def test_the_class_folder_counts_in_every_layout(tmp_path, layout, path, label):
    miniatures.write(tmp_path, path)
    assert list(labels(tmp_path, layout).values()) == [label]


def test_class_names_below_a_class_folder_are_styles_and_archives_count_as_folders(tmp_path):
    assert labels(FIELD / "class-words" / "c2") == {
        "fake/midjourney/painting": 1,
        "fake/midjourney/photo": 1,
        "fake/sdxl/nature": 1,
        "real/cats": 0,
        "real/synthetic": 0,
    }
    found = labels(FIELD / "class-words" / "s1")
    assert (found["dalle/1_fake/photo"], found["dalle/1_fake/painting"], found["dalle/0_real"]) == (1, 1, 0)
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
    "path",
    [
        *("fake/sdxl/real", "real/fake", "ai/photo", "photo/fake", "1_fake/a/0_real", "fake/0_real"),
        *("fake/real.zip!", "photo.zip!/fake"),
    ],
)
def test_two_class_folders_that_contradict_each_other_are_refused(tmp_path, path):
    miniatures.write(tmp_path, "real/1.png")
    if "!" in path:
        archive, member = path.split("!")
        miniatures.pack(tmp_path / archive, {f"{member}/1.png".lstrip("/"): miniatures.picture("x")})
    else:
        miniatures.write(tmp_path, f"{path}/1.png")
    words = [part.partition(".")[0] for part in path.split("/")]
    for layout in ("auto", "folder"):
        refusal(tmp_path, f"'{words[0]}' and in a folder '{words[-1]}', of which one says real", layout)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Training train2017 train_set trainset train-images training_data images_train trainval"),
        ("train", "train_val split=train Train_A"),
        ("val", "val valid validation val2014 val_set dev dev-set minival"),
        ("test", "test testing test_set testset test2017 test-dev test_A TEST1 eval evaluation holdout hold-out"),
        ("test", "held_out public_test test·(2)"),
        (None, "flux-dev testament trained-gan train_test devil unlabeled2017 value latest quux contest"),
        (None, "test_generators evaluator 2017 a"),
    ],
)
def test_names_of_splits(split, names):
    assert {name: split_word(name.replace("·", " ")) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *(("testing", "folder"), ("test_set", "genimage"), ("test2017", "aigcdetect"), ("eval", "chameleon")),
        *(("evaluation", "aigcdetect"), ("Dev", "folder"), ("val2014", "genimage"), ("holdout", "folder")),
    ],
)
def test_no_image_slips_into_training_by_the_name_of_its_split(tmp_path, name, layout):
    above = {"genimage": "ADM/inner/", "aigcdetect": "progan/"}.get(layout, "")
    paths = [f"{above}{split}/{kind}/1.png" for split in ("train", name) for kind in ("0_real", "1_fake")]
    miniatures.write(tmp_path, *paths)
    found, summary = placed(tmp_path, layout)
    assert {split for place, (_, split, _) in found.items() if place.startswith(f"{above}{name}")} <= {"val", "test"}
    assert [name.partition("/")[0] for name in summary.sets].count("train") == 1
    assert scanned(FIELD / "split-words" / "c7")[1].sets == ("mini", "train/mini")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train", "quux"),
        ("train", ""),
        ("training", "test_generators"),
    ],
)
def test_a_name_of_no_split_beside_one_is_refused(tmp_path, first, second):
    folders = [f"{name}/{kind}/1.png".lstrip("/") for name in (first, second) for kind in ("real", "fake")]
    miniatures.write(tmp_path, *folders)
    refusal(tmp_path, f"{second}.* is of no split, but {first}/.* is of ")


def test_shards_and_parquet_files_are_of_the_split_in_their_name(tmp_path):
    content = {f"{kind}/1.png": miniatures.picture(kind) for kind in ("real", "fake")}
    below = tmp_path / "below"
    for name in ("train-000001.zip", "test-000001.zip"):
        miniatures.pack(tmp_path / "above" / name, content)
        for kind in ("real", "fake"):  # below the class folders the rule is that of folders
            miniatures.pack(below / kind / name, {"1.png": b"x"})
    for root in (tmp_path / "above", below):
        found, summary = placed(root)
        assert all(split == ("train" if "train" in place else "test") for place, (_, split, _) in found.items())
        assert summary.sets == ("mini", "train/mini")
    (below / "real" / "test-000001.zip").unlink()
    refusal(below, "the classes have other splits")
    (below / "fake" / "train-000001.zip").unlink()
    (below / "fake" / "test-000001.zip").rename(below / "fake" / "part-000001.zip")
    found, _ = placed(below)
    assert found == {"real/train-000001.zip!": (0, None, ["mini"]), "fake/part-000001.zip!": (1, None, ["mini"])}


def test_splits_below_both_class_folders_are_splits_and_below_one_are_not(tmp_path):
    found, _ = placed(FIELD / "split-below-class" / "k1")
    assert found == {"real/val2017": (0, None, ["sdxl"]), "fake/sdxl": (1, None, ["sdxl"])}
    assert {split for _, split, _ in placed(FIELD / "split-below-class" / "k2")[0].values()} == {None}  # the vehicle
    miniatures.write(tmp_path, "one/real/1.png", "one/fake/train/1.png", "one/fake/test/1.png")
    refusal(tmp_path / "one", "put the folders of the splits above those of the classes")
    names = ("train", "eval")
    miniatures.write(tmp_path, *(f"a/{place}/{name}/1.png" for place in ("real", "fake/x") for name in names))
    found, _ = placed(tmp_path / "a")
    assert found == {
        "real/train": (0, "train", ["train/x"]),
        "real/eval": (0, "test", ["x"]),
        "fake/x/train": (1, "train", ["train/x"]),
        "fake/x/eval": (1, "test", ["x"]),
    }
    miniatures.write(tmp_path, "a/fake/y/1.png")
    refusal(tmp_path / "a", "fake/y is not")


@pytest.mark.parametrize(
    "above",
    [
        *("real_vs_fake/real-vs-fake/train", "real-vs-fake/train", "train", "cat", "person", "valid/dog"),
        *("deepfake", "glide", "midjourney", "laion", "sd-turbo", "sd-turbo/val", "Chameleon", "biggan/test", "dalle2"),
    ],
)
def test_anyones_two_classes_are_no_benchmark(tmp_path, above):
    miniatures.write(tmp_path, f"{above}/real/1.jpg", f"{above}/fake/1.jpg")
    found, summary = placed(tmp_path)
    assert summary.layout == "folder"
    assert not {"progan", "train/progan"} & set(summary.sets)
    assert found[f"{above}/fake"][0] == 1


def test_a_few_folders_called_like_generators_are_not_synthbuster(tmp_path):
    miniatures.write(tmp_path, "mine/firefly/1.jpg", "mine/glide/1.jpg", "raise/1.jpg")
    assert scanned(tmp_path / "mine")[1].layout == "unlabelled"
    assert scanned(tmp_path / "mine", reals=tmp_path / "raise")[1].layout == "synthbuster"
    assert scanned(tmp_path / "mine", "synthbuster")[1].fake == 2
    (tmp_path / "mine").rename(tmp_path / "Synthbuster")
    assert scanned(tmp_path / "Synthbuster")[1].layout == "synthbuster"


@pytest.mark.parametrize(
    ("layout", "written", "empty"),
    [
        ("folder", ["real/1.png", "fake/dalle/1.png"], "fake/sdxl"),
        ("drct-2m", ["sd-turbo/val2017/1.png"], "sdxl-turbo"),
    ],
)
def test_a_folder_of_a_generator_without_images_is_named(tmp_path, layout, written, empty):
    miniatures.write(tmp_path, *written)
    (tmp_path / empty).mkdir(parents=True)
    (tmp_path / empty / "notes.txt").write_text("x")
    (tmp_path / empty.split("/")[0] / ".cache").mkdir()
    assert f"no image in {empty}: missing from the corpus" in scanned(tmp_path, layout)[1].warnings


@pytest.mark.parametrize(
    ("first", "second"),
    [("real", "Real"), ("fake/SDXL", "fake/sdxl"), ("fake/caf\u00e9", unicodedata.normalize("NFD", "fake/caf\u00e9"))],
)
def test_folders_whose_names_look_the_same_are_named(tmp_path, first, second):
    miniatures.write(tmp_path, "real/1.png", "fake/x/1.png", f"{first}/a.png", f"{second}/b.png")
    if len(list((tmp_path / first).parent.iterdir())) < 2:
        pytest.skip("the file system does not tell these names apart")
    found, summary = placed(tmp_path)
    assert {first, second} <= set(found)
    names = " and ".join(sorted((first, second)))
    assert next(line for line in summary.warnings if "differ in case or Unicode form" in line).startswith(names)


def test_a_class_folder_may_be_a_link_but_not_to_the_other_class(tmp_path):
    miniatures.write(tmp_path, "photographs/1.png", "root/fake/1.png")
    (tmp_path / "root" / "real").symlink_to(tmp_path / "photographs")
    assert labels(tmp_path / "root") == {"real": 0, "fake": 1}
    (tmp_path / "root" / "0_real").symlink_to(tmp_path / "photographs")
    _, summary = scanned(tmp_path / "root")
    assert summary.warnings[-1] == "0_real and real are one folder by a link: its images are listed twice"
    (tmp_path / "root" / "1_fake").symlink_to(tmp_path / "photographs")
    refusal(tmp_path / "root", "0_real and 1_fake are one folder")
