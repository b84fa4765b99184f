"""Anyone's folders and labels: the user says with patterns which are real and which synthetic."""

import json

import miniatures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from miniatures import labels, refusal, scanned
from pydantic import ValidationError

from running import demo_params, invoke
from stages.scan.classes import ClassPatterns
from storage.manifest import read_manifest


def patterns(real="", synthetic="", leave_out=""):
    return ClassPatterns(real=real.split(), synthetic=synthetic.split(), leave_out=leave_out.split())


@pytest.mark.parametrize(
    ("folders", "given", "expected", "sets"),
    [
        ("human machine", patterns("HUMAN", "mach*"), "01", ["machine"]),
        ("human fake/sdxl", patterns("human"), "01", ["sdxl"]),  # the built-in names of the other class stay
        ("originals dalle3 flux/a", patterns("originals", "*"), "011", ["dalle3", "flux/a"]),
        ("T/real_coco T/real_ucid T/biggan_256 T/ldm/x", patterns("real_*", "*"), "0011", ["T/biggan_256", "T/ldm/x"]),
        ("T/set/real T/set/photo", patterns("*", "photo"), "01", ["T/set"]),
        ("camera sdxl tampered/sdxl", patterns("camera", "sdxl", "tamp*"), "01", ["sdxl"]),
    ],
)
def test_patterns_tell_the_class_of_folders(tmp_path, folders, given, expected, sets):
    miniatures.write(tmp_path, *(f"{folder}/1.png" for folder in folders.split()))
    rows, summary = scanned(tmp_path, classes=given)
    found = {path.rpartition("/")[0]: row for path, row in rows.items()}
    assert [found[folder]["label"] for folder in folders.split() if folder in found] == list(map(int, expected))
    assert sorted(summary.sets) == sets
    assert all(row["sets"] == sets for row in found.values() if row["label"] == 0)  # the sets share the reals
    assert [row["generator"] for row in found.values() if row["label"] == 1] == sets
    assert summary.skipped == ({"image(s) of a class to leave out": 1} if "tampered" in folders else {})
    assert not summary.warnings


@pytest.mark.parametrize(
    ("folders", "given", "said"),
    [
        (
            "real_fake x",
            patterns("real*", "*fake x"),
            "matches the pattern 'real.' for real and the pattern '.fake' for",
        ),
        ("fake/real real", patterns("real", "fake"), "'fake' and in a folder 'real'"),
        ("human generated", patterns("human", "generated gen_2"), "matches the pattern 'gen_2'"),
        ("human odd", patterns("human"), "say which of odd are which with --real PATTERN .* `classes: {real: "),
    ],
)
def test_patterns_that_do_not_decide_are_refused(tmp_path, folders, given, said):
    miniatures.write(tmp_path, *(f"{folder}/1.png" for folder in folders.split()))
    refusal(tmp_path, said, classes=given)


@pytest.mark.parametrize(("real", "synthetic"), [("", "*"), ("*", ""), ("*", "*"), ("a *", "*")])
def test_the_rest_needs_the_names_of_the_other_class(real, synthetic):
    with pytest.raises(ValidationError, match="takes all names that no other pattern takes"):
        patterns(real, synthetic)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("originals AI-generated", "01"),
        ("Authentic aigc", "01"),
        ("human gan", "01"),
        ("human/ai human/nature", "10"),
    ],
)
def test_common_names_are_built_in(tmp_path, folders, expected):
    miniatures.write(tmp_path, *(f"{folder}/1.png" for folder in folders.split()))
    assert [labels(tmp_path)[folder] for folder in folders.split()] == list(map(int, expected))


@pytest.mark.parametrize("folders", ["surreal fakebook", "human landscape", "gan diffusion", "camera phone", "human"])
def test_a_name_that_categories_have_too_is_no_class_by_itself(tmp_path, folders):
    miniatures.write(tmp_path, *(f"{folder}/1.png" for folder in folders.split()))
    _, summary = scanned(tmp_path)
    assert summary.layout == "unlabelled"
    assert f"say which of {', '.join(sorted(folders.split()))} are which with --real PATTERN" in summary.decided


def hub_parquet(file):
    """A file of a dataset hub with three classes."""
    feature = {"names": ["real", "full_synthetic", "tampered"], "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    table = pa.table({"image": [b"a", b"b", b"c"], "label": [0, 1, 2]})
    pq.write_table(table.replace_schema_metadata(metadata), file)


def test_patterns_tell_the_class_of_labels_in_archives_and_lists(tmp_path):
    given = patterns("real", "full_*", "tampered")
    hub_parquet(tmp_path / "a.parquet")
    examples = [{"cls": b"real"}, {"json": b'{"label": "full_synthetic"}'}, {"txt": b"tampered"}]
    miniatures.webdataset(tmp_path / "b.tar", *examples)
    rows, summary = scanned(tmp_path, classes=given)
    assert {path: (row["label"], row["generator"]) for path, row in rows.items()} == {
        "a.parquet!/00000000": (0, None),
        "a.parquet!/00000001": (1, "full_synthetic"),
        "b.tar!/000000.png": (0, None),
        "b.tar!/000001.png": (1, "full_synthetic"),
    }
    assert summary.skipped == {"image(s) of a class to leave out": 2}
    miniatures.write(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "list.csv").write_text("path,label\n1.png,real\n2.png,full_synthetic\n3.png,tampered\n")
    rows, summary = scanned(tmp_path / "list.csv", classes=given)
    assert [(row["label"], row["generator"], row["sets"]) for row in rows.values()] == [
        (0, None, ["full_synthetic"]),
        (1, "full_synthetic", ["full_synthetic"]),
    ]
    assert summary.skipped == {"image(s) of a class to leave out": 1}
    rows, _ = scanned(tmp_path / "list.csv", classes=patterns("full*", "real tampered"))
    assert [row["label"] for row in rows.values()] == [1, 0, 1]
    refusal(tmp_path / "a.parquet", "row 1: label 'full_synthetic' .*say which of full_synthetic, real, tampered are")


def test_commands_and_params_take_patterns(tmp_path, monkeypatch):
    miniatures.write(tmp_path / "mine", "human/1.png", "machine/2.png", "other/3.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))
    options = ["--real", "hum*", "--synthetic", "machine", "--leave-out", "other"]
    done = invoke("scan", "mine", *options, "--out", "m.parquet")
    assert done.exit_code == 0, done.output
    assert "1 real, 1 synthetic; 1 set: machine; left out: 1 image(s) of a class to leave out" in done.output
    by_options = read_manifest(tmp_path / "m.parquet")
    extract = ["extract", "mine", "--out", "features", "--backbone", "demo-vit", "--loaders", "0"]
    done = invoke(*extract, *options)
    assert done.exit_code == 0, done.output
    assert "1 real, 1 synthetic" in done.output
    assert "2 images usable" in done.output
    params = demo_params()
    classes = {"real": ["hum*"], "synthetic": ["*"], "leave_out": ["other"]}
    params["corpora"]["mine"] = {"root": "mine", "classes": classes}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    done = invoke("scan", "--corpus", "mine")
    assert done.exit_code == 0, done.output
    assert read_manifest(tmp_path / "corpora" / "mine.parquet").equals(by_options)
    done = invoke("scan", "--corpus", "mine", "--real", "x")
    assert "--real needs a FOLDER" in str(done.exception)
    done = invoke("scan", "mine", "--synthetic", "*")
    assert "expected patterns for real too" in str(done.exception)
