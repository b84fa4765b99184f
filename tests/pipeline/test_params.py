"""params.yaml is validated as a whole, and every fault is one line with the key's path and what is allowed."""

import datetime
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml as load_as_dvc_does
from dvc.utils.serialize import parse_yaml as read_as_dvc_does

from pipeline.params import Params, load_params
from pipeline.validation import load_yaml
from running import PROJECT, invoke
from stages.heads.settings import TrainSettings
from storage.errors import SettingError

DEMO = (PROJECT / "profiles" / "demo.yaml").read_text()
LTD = "{type: ltd, selection: halving}"


def faults(folder, text):
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
        ("lr: 0.001", "lr: .nan", "train.lr: input should be a finite number, found nan"),
        ("seeds: [0, 1]", "seeds: []", "seeds: expected at least 1, found none"),
        ("layout: folder,", "layout: folder, splits: [trian],", "corpora.demo-train.splits.0: input should be 'train'"),
        ("layout: folder,", "layout: folder, protocol: ltd,", "says nothing about layout 'folder', only about ufd"),
        (LTD, "ltd", "heads.ltd: expected a mapping of keys to values, found 'ltd'"),
        (LTD, "{type: ltdd}", "heads.ltd: unknown type 'ltdd'; allowed: 'ltd', 'linear'"),
        (LTD, "{type: ltd, windoww: 4}", "heads.ltd.windoww: unknown key; did you mean 'window'?"),
        ("train_on: [demo-train]", "train_on: [demo-trian]", "train_on.0: 'demo-trian' is no corpus"),
        ("taps: [cls, embedding]", "taps: [embedding]", "extract.taps: lacks cls, which the head 'ltd'"),
        ("  ltd: {", "  l/td: {", "heads.l/td: a name holds letters, digits, - and _ only"),
        ("\nevaluate:", "\nevaluat:", "evaluate: this key is missing"),
        ("window: []", "window: [demo-test]", "sweeps.window.0: 'demo-test' is not in `train_on`, which lists demo-tr"),
        ("corpora: [demo-test]", "corpora: [demo-test, demo-test]", "evaluate.corpora: demo-test is listed twice"),
        ("\ncorpora:", "\ncorpora:\n  external: {root: x}", "corpora: `external` is the folder of other detectors'"),
        ("batch: 64", "batch: [", "is no valid YAML"),
        ("train_on: [demo-train]", "train_on: [demo-train, demo-train]", "train_on: demo-train is listed twice"),
        ("batch: 64", 'batch: 64\n  views: ["train:2"]', "corpora.demo-train.views: lacks train-0, train-1"),
        ("batch: 64", "batch: 64\n  validation_view: val", "corpora.demo-train.views: lacks val"),
    ],
)
def test_a_fault_is_named_in_one_line(tmp_path, right, wrong, expected):
    assert right in DEMO
    lines = faults(tmp_path, DEMO.replace(right, wrong, 1))
    assert any(expected in line for line in lines), lines


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
    assert "added the defaults of notes, demo, extract, heads, seeds, train, sweeps" in invoke("scan").output
    completed = (tmp_path / "params.yaml").read_text()
    assert completed.startswith(f"{mine}\n")
    assert set(read_as_dvc_does(completed, "params.yaml")) == set(Params.model_fields)
    assert load_params(tmp_path / "params.yaml") == params
    assert (tmp_path / "corpora" / "mine-train.parquet").exists()
    assert invoke("scan").exit_code == 0
    assert (tmp_path / "params.yaml").read_text() == completed


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("1e-4", 1e-4),
        ("5E-5", 5e-5),
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
