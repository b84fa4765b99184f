"""The commands as a user runs them."""

import csv
import dataclasses
import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from scipy.stats import binom

from pipeline.cli import ltdpipe
from running import environment
from stages.extract.registry import BACKBONES
from stages.predict.bundle import read_bundle
from stages.predict.detector import CHECKS
from storage.errors import DataError, SettingError
from storage.headfile import load_head, save_head


def call(*arguments, stdin=b""):
    runner = CliRunner()
    return runner.invoke(ltdpipe, [str(argument) for argument in arguments], input=stdin, catch_exceptions=True)


@pytest.fixture
def real(study):
    return study.images("test") / "real"


def rows_of(out):
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_from_a_head_to_verdicts(study, real, tmp_path):
    bundle, out = tmp_path / "detector.ltd", tmp_path / "out.jsonl"
    assert call("bundle", study.head, "-o", bundle, "--features", study.features("train")).exit_code == 0
    calibrated = call("calibrate", bundle, "--on", study.scores("held"), "--target-fpr", 0.1, "--unsure", 0.1)
    assert calibrated.exit_code == 0, calibrated.output
    assert "guarantee: a new real image" in calibrated.output
    assert "probabilities: of equally likely classes; the verdict is synthetic above 0." in calibrated.output
    done = call("predict", bundle, real, "-o", out)
    assert done.exit_code == 0, done.output
    assert "predict: 20/20 images, " in done.stderr
    assert done.stdout == ""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"] for row in rows] == sorted(str(path) for path in real.iterdir())
    assert all((row["verdict"] == "synthetic") == (row["probability"] > row["synthetic_above"]) for row in rows)
    alarms = sum(row["verdict"] == "synthetic" for row in rows)
    assert binom.ppf(0.001, len(rows), 0.1) <= alarms <= binom.ppf(0.999, len(rows), 0.1)
    again = call("predict", bundle, real, "--resume", out)
    assert again.exit_code == 0
    assert "20 there already" in again.output
    table = call("predict", bundle, real / "00000.png")
    limit = f"synthetic above p = {rows[0]['synthetic_above']:.4f}"
    assert table.stdout.splitlines()[0].endswith(f"({limit})")
    assert f"1 image (1 {rows[0]['verdict']}); {limit}" in table.stderr
    assert "warning: the backbone has random weights" in table.stderr
    assert "scores of corpus held, clean" in table.stderr
    card = call("show", bundle).stdout
    assert f"| Detector | {rows[0]['detector']} |" in card
    assert "scores of corpus held, clean, 30 real, 30 synthetic" in card
    assert "| Trained on | train |" in card
    assert "| Backbone | demo-vit, random weights sha256 " in card
    assert "| Weights | random, sha256 " in card
    assert "## Training" in card


def test_random_weights_of_any_backbone_are_named_wherever_a_detector_is_shown(study, tmp_path, monkeypatch):
    card = dataclasses.replace(BACKBONES["demo-vit"], name="small", library="open_clip")
    monkeypatch.setitem(BACKBONES, "small", card)
    weights, metadata = load_head(study.head)
    spec = json.loads(metadata["feature_spec"]) | {"backbone": "small"}
    marks = ("on small with random weights", "| Weights | random, sha256", "| Backbone | small, random weights")
    for made_by in ("random:3:", ""):
        head, bundle = tmp_path / "head.safetensors", tmp_path / "detector.ltd"
        stated = json.dumps(spec | {"weights": f"{made_by}{spec['weights']}"})
        save_head(head, weights, metadata | {"feature_spec": stated})
        done = call("bundle", head, "-o", bundle)
        assert done.exit_code == 0, done.output
        shown = (done.stdout, call("show", head).stdout, call("show", bundle).stdout)
        assert [mark in text for mark, text in zip(marks, shown, strict=True)] == [bool(made_by)] * 3
        bundle.unlink()


@pytest.mark.parametrize(("words", "check", "views"), [([], "+check", "mild"), (["web"], "+check-web", "web")])
def test_a_check_says_which_views_flip_and_sorting_puts_the_most_suspicious_first(study, tmp_path, words, check, views):
    out = tmp_path / "out.csv"
    done = call("predict", study.bundle, "-o", out, "--sort", "--check", *words, study.images("test"))
    assert done.exit_code == 0, done.output
    rows = rows_of(out)
    logits = [float(row["logit"]) for row in rows]
    assert logits == sorted(logits, reverse=True)
    assert {row["detector"].partition("+")[2] for row in rows} == {check[1:]}
    flips = Counter(view for row in rows for view in row["flipped"].split())
    assert flips.keys() <= set(CHECKS[views])
    assert all((row["verdict"] == "unsure") == bool(row["flipped"]) for row in rows)
    assert flips
    for view, count in flips.items():
        assert f"{count} under {view}" in done.stderr
    refused = call("predict", study.bundle, study.images("test"), "--resume", out, "--sort")
    assert "leave --sort out" in str(refused.exception)


def test_features_give_the_calibration_of_scores(study, tmp_path):
    out, options = tmp_path / "new.ltd", ("--target-fpr", 0.1)
    assert "is a head file; make a bundle" in str(call("calibrate", study.head, "--on", study.scores("held")).exception)
    logits = []
    for source in (study.features("held"), study.scores("held")):
        done = call("calibrate", study.bundle, "--on", source, *options, "-o", out)
        assert done.exit_code == 0, done.output
        logits.append(read_bundle(out).manifest.calibration.threshold)
    assert logits[0] == pytest.approx(logits[1], abs=1e-4)


def test_refused_calibrations(study, tmp_path):
    bundle = tmp_path / "detector.ltd"
    shutil.copy(study.bundle, bundle)
    few = call("calibrate", bundle, "--on", study.scores("held"))
    assert isinstance(few.exception, DataError)
    assert "at least 99 are needed" in str(few.exception)
    seen = call("calibrate", bundle, "--on", study.scores("train"), "--target-fpr", 0.1)
    assert "trained on" in str(seen.exception)
    assert bundle.read_bytes() == study.bundle.read_bytes()
    other = call("calibrate", bundle, "--on", tmp_path / "none.csv")
    assert "none.csv does not exist" in str(other.exception)


def test_a_corpus_of_the_project_is_known_by_name(study, tmp_path, monkeypatch):
    profile = Path(__file__).parents[3] / "profiles" / "demo.yaml"
    shutil.copy(profile, tmp_path / "params.yaml")
    shutil.copy(study.bundle, tmp_path / "detector.ltd")
    (tmp_path / "data" / "features").mkdir(parents=True)
    (tmp_path / "data" / "features" / "demo-test").symlink_to(study.features("held").parent)
    monkeypatch.chdir(tmp_path)
    done = call("calibrate", "detector.ltd", "--on", "demo-test", "--target-fpr", 0.1)
    assert done.exit_code == 0, done.output
    assert "is not in `corpora`" in str(call("calibrate", "detector.ltd", "--on", "nowhere").exception)


def test_images_held_out_of_training_calibrate(study, tmp_path):
    bundle = tmp_path / "detector.ltd"
    shutil.copy(study.bundle, bundle)
    done = call("calibrate", bundle, "--on", study.features("train"), "--target-fpr", 0.3)
    assert done.exit_code == 0, done.output
    assert "held out of training" in done.output


def test_results_of_unlabelled_images_calibrate(study, real, tmp_path):
    bundle, results = tmp_path / "detector.ltd", tmp_path / "results.csv"
    shutil.copy(study.bundle, bundle)
    assert call("predict", bundle, real, "-o", results).exit_code == 0
    assert "say it with --images" in str(call("calibrate", bundle, "--on", results).exception)
    assert "at least 100" in str(call("calibrate", bundle, "--on", results, "--images", "unlabelled").exception)
    done = call("calibrate", bundle, "--on", results, "--images", "real", "--target-fpr", 0.1)
    assert done.exit_code == 0, done.output
    stale = call("calibrate", bundle, "--on", results, "--images", "real", "--target-fpr", 0.1)
    assert "predict again" in str(stale.exception)


def test_exit_status_of_broken_images(study, real, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"x")
    nothing = call("predict", study.bundle, folder)
    assert isinstance(nothing.exception, DataError)
    assert nothing.exception.exit_code == 3
    assert "failed" in nothing.stdout
    shutil.copy(real / "00000.png", folder / "good.png")
    assert call("predict", study.bundle, folder).exit_code == 0
    strict = call("predict", study.bundle, folder, "--strict", "--format", "csv")
    assert strict.exception.exit_code == 3
    assert len(strict.stdout.splitlines()) == 3


def test_failures_before_a_stop_count_when_the_run_goes_on(study, real, tmp_path):
    folder, out = tmp_path / "mixed", tmp_path / "out.csv"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"x")
    shutil.copy(real / "00000.png", folder / "good.png")
    assert call("predict", study.bundle, folder, "-o", out).exit_code == 0
    again = call("predict", study.bundle, folder, "--resume", out, "--strict")
    assert "1 of 2 images could not be read" in str(again.exception)
    assert "1 failed, 1 there already" in again.output
    (folder / "good.png").unlink()
    out.unlink()
    assert call("predict", study.bundle, folder, "-o", out).exit_code != 0
    assert "1 of 1 images could not be read" in str(call("predict", study.bundle, folder, "--resume", out).exception)


def test_a_path_that_is_not_there_is_said_before_anything_is_scored(study, real, tmp_path):
    done = call("predict", study.bundle, real, tmp_path / "none.png", "-o", tmp_path / "out.csv")
    assert isinstance(done.exception, DataError)
    assert "none.png does not exist" in str(done.exception)
    assert done.output == ""
    assert not (tmp_path / "out.csv").exists()
    assert call("predict", tmp_path / "none.ltd", real, tmp_path / "none.png").output == ""


def test_a_list_on_standard_input_and_a_table(study, real):
    paths = [real / "00001.png", real / "00000.png"]
    done = call("predict", study.bundle, "-", stdin="\n".join(map(str, paths)).encode())
    assert done.exit_code == 0, done.output
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == [str(path) for path in paths]
    assert "line 1 of the list" in str(call("predict", study.bundle, "-", stdin=b"x" * 10_000_000).exception)


def test_options_that_do_not_go_together(study, real, tmp_path):
    for options in (("-o", "a.csv", "--resume", "b.csv"), ("-o", tmp_path / "out.xlsx"), ("--resume", "c.html")):
        assert isinstance(call("predict", study.bundle, real, *options).exception, SettingError)
    assert list(tmp_path.iterdir()) == []


def stopped_after(rows, study, cwd, number):
    """Start a run on a list that does not end, and stop it by a signal when all rows of the list are written."""
    out = cwd / "out.csv"
    command = ["ltdpipe", "predict", str(study.bundle), "-", "-o", out.name, "--loaders", "0", "--batch", "1"]
    with subprocess.Popen(
        command, cwd=cwd, env=environment(cwd), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        run.stdin.write("".join(f"{path}\n" for path in rows))
        run.stdin.flush()
        while not out.exists() or out.read_text().count("\n") < 1 + len(rows):
            assert run.poll() is None, run.stderr.read()
            time.sleep(0.02)
        run.send_signal(number)
        said = run.stderr.read()
        return run.wait(), said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_says_how_to_go_on_and_goes_on(study, real, tmp_path, number, status):
    paths = sorted(str(path) for path in real.iterdir())[:5]
    code, said = stopped_after(paths[:3], study, tmp_path, number)
    assert code == status
    if number != signal.SIGKILL:
        assert "run the same command with --resume out.csv in place of --out" in said
        assert "Traceback" not in said
    kept = rows_of(tmp_path / "out.csv")
    assert [row["path"] for row in kept] == paths[:3]
    done = call("predict", study.bundle, *paths, "--resume", tmp_path / "out.csv")
    assert "3 there already" in done.stderr
    assert rows_of(tmp_path / "out.csv")[:3] == kept
    assert [row["path"] for row in rows_of(tmp_path / "out.csv")] == paths
