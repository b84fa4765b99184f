"""params.yaml is validated as a whole, and every fault is one line with the key's path and what is allowed."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml as load_as_dvc_does
from dvc.utils.serialize import parse_yaml as read_as_dvc_does

from pipeline.cli import ltdpipe
from pipeline.params import Params, load_params
from pipeline.validation import load_yaml
from running import PROJECT
from stages.heads.settings import TrainSettings
from storage.errors import SettingError

DEMO = (PROJECT / "profiles" / "demo.yaml").read_text()
LTD = "{type: ltd, selection: halving}"


def faults(folder: Path, text: str) -> list[str]:
    path = folder / "params.yaml"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        load_params(path)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("profile", sorted((PROJECT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_is_valid_and_stays_so_when_dvc_writes_it(profile, tmp_path):
    """`dvc exp run -S` drops quotes; of `[clean, "jpeg:80"]` it leaves what it cannot read itself."""
    params = load_params(profile)
    copy = Path(shutil.copy(profile, tmp_path))
    apply_overrides(copy, ["train.lr=0.25"])
    assert load_as_dvc_does(str(copy))["train"]["lr"] == 0.25
    assert load_params(copy) == params.model_copy(update={"train": params.train.model_copy(update={"lr": 0.25})})


def test_committed_parameters_are_the_demo_profile():
    committed = subprocess.run(
        ["git", "show", "HEAD:params.yaml"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert committed.stdout == DEMO


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("lr: 0.001", "lrr: 0.001", "train.lrr: unknown key; did you mean 'lr'?"),
        ("lr: 0.001", "lr: fast", "train.lr: input should be a valid number, found 'fast'"),
        ("lr: 0.001", "lr: -1.0", "train.lr: input should be greater than 0, found -1.0"),
        ("lr: 0.001", "lr: .nan", "train.lr: input should be a finite number, found nan"),
        ("epochs: 30", "epochs: 0", "train.epochs: input should be greater than or equal to 1, found 0"),
        ("batch: 64", "batch: 1.5", "train.batch: input should be a valid integer, found 1.5"),
        ("seeds: [0, 1]", "seeds: []", "seeds: expected at least 1, found none"),
        ("layout: folder,", "layout: folder, splits: [trian],", "corpora.demo-train.splits.0: input should be 'train'"),
        ("layout: folder,", "layout: folder, protocol: ltd,", "says nothing about layout 'folder', only about ufd"),
        ("layout: folder,", "protocol: ltd,", "says nothing about layout 'folder', only about ufd"),
        ("seeds: [0, 1]", "seeds: 0", "seeds: expected a list, found 0"),
        (LTD, "ltd", "heads.ltd: expected a mapping of keys to values, found 'ltd'"),
        ("seeds: [0, 1]", "seeds: [0, x]", "seeds.1: input should be a valid integer, found 'x'"),
        (LTD, "{type: ltdd}", "heads.ltd: unknown type 'ltdd'; allowed: 'ltd', 'linear'"),
        (LTD, "{type: ltd, windoww: 4}", "heads.ltd.windoww: unknown key; did you mean 'window'?"),
        (LTD, "{type: ltd, window: 1}", "heads.ltd: the delta branch needs a window of 2 blocks or more"),
        (LTD, "{window: 4}", "heads.ltd: the key `type` is missing"),
        ("train_on: [demo-train]", "train_on: [demo-trian]", "train_on.0: 'demo-trian' is no corpus"),
        ("[demo-test]", "[demo-tset]", "evaluate.corpora.0: 'demo-tset' is no corpus"),
        ("backbone: demo-vit", "backbone: demo-vitt", "extract.backbone: "),
        ("layout: folder,", "layout: foldr,", "corpora.demo-train.layout: "),
        ("{type: linear, block: last}", "{type: rine}", "extract.taps: lacks ln2_cls, which the head 'linear'"),
        ("taps: [cls, embedding]", "taps: [embedding]", "extract.taps: lacks cls, which the head 'ltd'"),
        ("half: left", "half: up", "demo.demo-train.half: input should be 'left' or 'right', found 'up'"),
        ("study: demo", "study: ../demo", "study: a name holds letters, digits, - and _ only, found '../demo'"),
        ("  ltd: {", "  l/td: {", "heads.l/td: a name holds letters, digits, - and _ only"),
        ("study: demo\n", "", "study: this key is missing"),
        ("\nevaluate:", "\nevaluat:", "evaluate: this key is missing"),
        ("window: []", "window: [demo-test]", "sweeps.window.0: 'demo-test' is not in `train_on`, which lists demo-tr"),
        ("layer: []", "layer: [demo-train, demo-train]", "sweeps.layer: demo-train is listed twice"),
        ("corpora: [demo-test]", "corpora: [demo-test, demo-test]", "evaluate.corpora: demo-test is listed twice"),
        ("\ncorpora:", "\ncorpora:\n  external: {root: x}", "corpora: `external` is the folder of other detectors'"),
        ("  demo-test: {half", "  demo-tset: {half", "demo.demo-tset: 'demo-tset' is no corpus"),
        ("batch: 64", "batch: [", "is no valid YAML"),
        ("seeds: [0, 1]", "seeds: [0, 1, 0]", "seeds: 0 is listed twice"),
        ("train_on: [demo-train]", "train_on: [demo-train, demo-train]", "train_on: demo-train is listed twice"),
        ("batch: 64", 'batch: 64\n  views: ["train:2"]', "corpora.demo-train.views: lacks train-0, train-1"),
        ("batch: 64", "batch: 64\n  validation_view: val", "corpora.demo-train.views: lacks val"),
        ("      - clean\n", "", "corpora.demo-test.views: lacks clean"),
    ],
)
def test_a_fault_is_named_in_one_line(tmp_path, right, wrong, expected):
    assert right in DEMO
    lines = faults(tmp_path, DEMO.replace(right, wrong, 1))
    assert any(expected in line for line in lines), lines


def test_a_fault_that_follows_from_another_is_left_out(tmp_path):
    (line,) = faults(tmp_path, DEMO.replace("seeds: [0, 1]", "seeds: [x]"))
    assert "seeds.0: " in line
    assert faults(tmp_path, DEMO.replace("layout: folder,", "layout: folder, sets: [1],", 1)) == [
        "corpora.demo-train.sets.0: input should be a valid string, found 1"
    ]


def test_what_was_found_is_said_once(tmp_path):
    assert faults(tmp_path, DEMO.replace("jpeg:80", "jpeg:x")) == [
        "corpora.demo-test.views: view 'jpeg:x': jpeg takes a quality, a whole number in 1..100, found 'x'"
    ]
    (line,) = faults(tmp_path, DEMO.replace("batch: 64", "batch: 64\n  validation_view: train:x"))
    assert line == "train.validation_view: view 'train:x': expected train:V with V views in 1..1000, as in train:5"


def test_all_faults_are_reported_at_once(tmp_path):
    lines = faults(tmp_path, DEMO.replace("lr: 0.001", "lr: fast").replace("half: left", "half: up"))
    assert len(lines) == 2


def test_a_study_needs_few_keys_and_scan_adds_the_rest_for_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("mine/train/real", "mine/train/fake/gan"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").touch()
    mine = (
        "# my study\nstudy: mine\ncorpora:\n  mine-train: {root: mine/train, layout: folder}\n"
        "train_on: [mine-train]\nevaluate: {corpora: [mine-train], match: [jpeg+size]}"
    )
    (tmp_path / "params.yaml").write_text(mine)
    params = load_params(tmp_path / "params.yaml")
    assert params.train == TrainSettings()
    assert set(params.heads) == {"ltd", "linear"}
    assert (
        "added the defaults of notes, demo, extract, heads, seeds, train, sweeps"
        in CliRunner().invoke(ltdpipe, ["scan"]).output
    )
    completed = (tmp_path / "params.yaml").read_text()
    assert completed.startswith(f"{mine}\n")
    assert set(read_as_dvc_does(completed, "params.yaml")) == set(Params.model_fields)
    assert load_params(tmp_path / "params.yaml") == params
    assert (tmp_path / "corpora" / "mine-train.parquet").exists()
    assert CliRunner().invoke(ltdpipe, ["scan"]).exit_code == 0
    assert (tmp_path / "params.yaml").read_text() == completed


@pytest.mark.parametrize("text", ["", "- a list", "just text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    assert "expected a mapping" in faults(tmp_path, text)[0]


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(SettingError, match="ltdpipe profile use"):
        load_params(tmp_path / "params.yaml")


def test_validating_parameters_imports_no_heavy_library():
    code = (
        "import sys; from pathlib import Path; from pipeline.params import load_params; "
        "load_params(Path('profiles/demo.yaml')); "
        "print([name for name in ('torch', 'sklearn', 'open_clip', 'pyarrow', 'dask') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_window_sweep_needs_the_head_that_it_varies(tmp_path):
    swept = DEMO.replace("sweeps: {window: [],", "sweeps: {window: [demo-train],")
    (tmp_path / "params.yaml").write_text(swept)
    assert load_params(tmp_path / "params.yaml").sweeps.window == ("demo-train",)
    assert "sweeps.window: it varies the head named ltd" in faults(tmp_path, swept.replace("  ltd: {", "  mine: {"))[0]


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("010", 10),
        ("-017", -17),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("1e-4", 1e-4),
        ("5E-5", 5e-5),
        ("2e+3", 2000.0),
        (".inf", float("inf")),
        ("2026-11-28", datetime.date(2026, 11, 28)),
        ("{a: &all {lr: 1, batch: 2}, b: {<<: *all, lr: 3}}", {"a": {"lr": 1, "batch": 2}, "b": {"lr": 3, "batch": 2}}),
    ],
)
def test_a_value_has_one_meaning_that_of_dvc(spelling, value):
    text = f"train: {spelling}\n"
    assert load_yaml(text, "params.yaml") == read_as_dvc_does(text, "params.yaml") == {"train": value}


@pytest.mark.parametrize(("text", "line"), [("a: 1\nlr: 0.001\nlr: 0.5\n", 3), ("a:\n  {lr: 1, lr: 2}\n", 2)])
def test_a_key_that_stands_twice_is_refused(text, line):
    with pytest.raises(SettingError, match=f'params.yaml is no valid YAML: found duplicate key "lr", in line {line}'):
        load_yaml(text, "params.yaml")
