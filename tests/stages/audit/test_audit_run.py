"""The audit of features: what it finds, writes and prints."""

import json

import pytest
import yaml
from audit_tables import write_features

from running import demo_params, invoke
from stages.audit.run import run
from storage.errors import DataError

REAL, FAKE = {"label": 0}, {"label": 1}
JPEG = {"format": "JPEG", "jpeg_quality": 92}
TRAIN = {"split": "train"}
# Rows of a corpus with every kind of copy, by path.
COPIES = {
    "test/real/0": REAL | {"like": 0},
    "test/real/near-same": REAL | {"like": 0},
    "test/real/1": REAL | {"like": 1},
    "test/fake/near-real": FAKE | {"like": 1},
    "test/real/2": REAL | {"sha256": "c", "like": 2},
    "test/fake/both": FAKE | {"sha256": "c", "like": 2},
    "test/fake/exact": FAKE | {"sha256": "t", "like": 3},
    "train/fake/0": FAKE | TRAIN | {"sha256": "t", "like": 3},
    "test/real/near-train": REAL | {"like": 4},
    "train/real/1": REAL | TRAIN | {"like": 4},
    "train/fake/broken": FAKE | TRAIN | {"status": "failed", "error": "no image: x", "width": None, "height": None},
}
THEIRS = [("8", "x", {"like": 0}), ("9", "c", {}), ("0", "y", {})]  # path, sha256, and what it is like


@pytest.fixture
def audit(tmp_path, reporter):
    def audited(features, **options):
        out = tmp_path / "audit.json"
        given = {"corpus": "toy", "features": features, "layout": "folder", "out": out, "reporter": reporter}
        found = run(**given | options)
        assert json.loads(out.read_text()) == found
        return found

    return audited


@pytest.fixture
def copies(tmp_path):
    return write_features(tmp_path / "copies", *(row | {"path": path} for path, row in COPIES.items()))


def kinds(found):
    return {warning["kind"] for warning in found["warnings"]}


def pairs(entry):
    return [(pair["first"], pair["second"]) for pair in entry]


def test_duplicates_in_training_and_with_both_labels(audit, copies):
    found = audit(copies)
    assert kinds(found) == {
        *("unreadable", "duplicates", "label-noise", "train-test-duplicates", "train-test-near-duplicates"),
    }
    exact, near, noise = found["duplicates"], found["near_duplicates"], found["label_noise"]
    assert exact["train_test_examples"] == [{"test": "test/fake/exact", "train": "train/fake/0"}]
    assert exact["with_both_labels"] == [["test/real/2", "test/fake/both"]]
    assert pairs(near["train_test_examples"]) == [("test/real/near-train", "train/real/1")]  # equal bytes are no news
    assert pairs(noise["candidates"]) == [("test/real/1", "test/fake/near-real")]
    assert near["pairs_in_test"] == 3
    assert found["unreadable"]["reasons"] == {"no image": 1}
    assert [example["path"] for example in found["unreadable"]["examples"]] == ["train/fake/broken"]
    assert audit(copies, train=copies) == found  # its own training split counts then
    without = audit(copies, near=None)
    assert without["near_duplicates"] == {"left_out": "left out as asked for"}
    assert "train-test-near-duplicates" not in kinds(without)


def test_duplicates_of_another_training_corpus(audit, copies, tmp_path, reporter):
    theirs = [FAKE | {"path": path, "sha256": sha256, **more} for path, sha256, more in THEIRS]
    found = audit(copies, train=write_features(tmp_path / "other", *theirs))
    assert [pair["train"] for pair in found["duplicates"]["train_test_examples"]] == ["9", "9"]
    assert {pair["second"] for pair in found["near_duplicates"]["train_test_examples"]} == {"8"}
    found = audit(copies, train=write_features(tmp_path / "tiles", *theirs, geometry="tile224"))
    assert found["duplicates"]["train_test"] == 2
    assert found["near_duplicates"]["pairs_train_test"] == 0
    assert "view.geometry" in found["near_duplicates"]["train_test_left_out"]
    assert any("near duplicates of training images are not looked for" in warning for warning in reporter.warnings)
    assert found["label_noise"]["pairs"] > 0


def test_each_set_is_warned_of_by_itself_and_gaps_are_counted(audit, tmp_path):
    alike = [{"label": n % 2, "sets": ["alike"]} for n in range(20)]
    biased = [{"label": n % 2, "sets": ["biased"], **({} if n % 2 else JPEG)} for n in range(20)]
    features = write_features(tmp_path / "sets", *alike, *biased)
    found = audit(features, asked=("alike", "gone"), missing=["fake/empty", "fake/sdxl"])
    assert found["without_images"] == ["fake/empty", "fake/sdxl"]
    assert [(warning["kind"], warning["set"]) for warning in found["warnings"]] == [
        ("missing-set", "gone"),
        ("missing-set", None),
        ("format-bias", "biased"),
    ]
    assert found["warnings"][1]["text"].startswith("2 of 4 sets have images; means leave out fake/empty, fake/sdxl")
    assert "AP 1.000, guessing gives 0.500" in found["warnings"][2]["text"]
    assert [entry["predictor"]["ap"] for entry in found["sets"]] == [0.5, 1.0]
    assert found["sets"][0]["matched"] == {"jpeg": 20, "size": 20, "jpeg+size": 20}
    assert found["sets"][1]["matched"] == {"jpeg": 0, "size": 20, "jpeg+size": 0}
    assert audit(write_features(tmp_path / "one", *alike))["warnings"] == []


def test_sets_of_one_class_and_small_images(audit, tmp_path):
    sides = ((0, 335), (1, 336), (1, 300))
    rows = [{"label": label, "width": side, "height": 400} for label, side in sides]
    found = audit(write_features(tmp_path / "v", *rows, {"label": 0, "sets": ["lonely"], "width": 400}, size=336))
    assert [(warning["kind"], warning["set"]) for warning in found["warnings"]] == [
        ("one-class", "lonely"),
        ("below-crop", "lonely"),
        ("below-crop", "s"),
    ]
    assert "no synthetic image" in found["warnings"][0]["text"]
    assert "1 of 1 real and 1 of 2 synthetic images are smaller than the crop of 336" in found["warnings"][2]["text"]
    assert found["sets"][1]["below_crop"] == {"real": 1, "synthetic": 1}


def test_unlabelled_images_cannot_be_audited(audit, tmp_path):
    with pytest.raises(DataError, match="without a label; an audit compares"):
        audit(write_features(tmp_path / "unlabelled", {"label": None}))
    assert not (tmp_path / "audit.json").exists()


def test_the_command_prints_a_table_and_the_warnings(tmp_path, monkeypatch):
    params = demo_params(demo={}, train_on=["clean"])
    params |= {"corpora": {name: {"root": "nowhere"} for name in ("biased", "clean")}}
    params["evaluate"]["corpora"] = ["biased"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for name in params["corpora"]:
        rows = [{"label": n % 2, "sets": ["b"], **({} if n % 2 else JPEG)} for n in range(20)]
        write_features(tmp_path / "data" / "features" / name / "clean", *rows)
    monkeypatch.chdir(tmp_path)
    result = invoke("audit", "--corpus", "biased", env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.exception or result.output
    assert "audit of biased" in result.output
    assert "1.000" in result.output
    assert "format-bias: set b: format, size and JPEG quality" in result.output
    out = tmp_path / "audit" / "biased" / "clean.json"
    found = json.loads(out.read_text())
    assert (found["corpus"], found["near_duplicates"]["cosine"]) == ("biased", 0.98)
    invoke("audit", "--corpus", "biased", "--no-near")
    assert "left_out" in json.loads(out.read_text())["near_duplicates"]
