"""The commands as a user runs them."""

import dataclasses
import json
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest
from scipy.stats import binom

from running import environment, invoke, read_csv
from stages.extract.registry import BACKBONES
from stages.predict.bundle import read_bundle
from stages.predict.detector import CHECKS
from storage.errors import DataError
from storage.headfile import load_head, save_head


@pytest.fixture
def real(study):
    return study.images("test") / "real"


def test_from_a_head_to_verdicts(study, real, tmp_path):
    bundle, out = tmp_path / "detector.ltd", tmp_path / "out.jsonl"
    assert invoke("bundle", study.head, "-o", bundle, "--features", study.features("train")).exit_code == 0
    calibrated = invoke("calibrate", bundle, "--on", study.scores("held"), "--target-fpr", 0.1, "--unsure", 0.1)
    assert calibrated.exit_code == 0, calibrated.output
    assert "guarantee: a new real image" in calibrated.output
    assert "probabilities: of equally likely classes; the verdict is synthetic above 0." in calibrated.output
    done = invoke("predict", bundle, real, "-o", out)
    assert done.exit_code == 0, done.output
    assert "predict: 20/20 images, " in done.stderr
    assert done.stdout == ""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["path"] for row in rows] == sorted(str(path) for path in real.iterdir())
    assert all((row["verdict"] == "synthetic") == (row["probability"] > row["synthetic_above"]) for row in rows)
    alarms = sum(row["verdict"] == "synthetic" for row in rows)
    assert binom.ppf(0.001, len(rows), 0.1) <= alarms <= binom.ppf(0.999, len(rows), 0.1)
    again = invoke("predict", bundle, real, "--resume", out)
    assert again.exit_code == 0
    assert "20 there already" in again.output
    table = invoke("predict", bundle, real / "00000.png")
    limit = f"synthetic above p = {rows[0]['synthetic_above']:.4f}"
    assert table.stdout.splitlines()[0].endswith(f"({limit})")
    assert f"1 image (1 {rows[0]['verdict']}); {limit}" in table.stderr
    assert "warning: the backbone has random weights" in table.stderr
    assert "scores of corpus held, clean" in table.stderr
    card = invoke("show", bundle).stdout
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
        done = invoke("bundle", head, "-o", bundle)
        assert done.exit_code == 0, done.output
        shown = (done.stdout, invoke("show", head).stdout, invoke("show", bundle).stdout)
        assert [mark in text for mark, text in zip(marks, shown, strict=True)] == [bool(made_by)] * 3
        bundle.unlink()


@pytest.mark.parametrize(("words", "check", "views"), [([], "+check", "mild"), (["web"], "+check-web", "web")])
def test_a_check_says_which_views_flip_and_sorting_puts_the_most_suspicious_first(study, tmp_path, words, check, views):
    out = tmp_path / "out.csv"
    done = invoke("predict", study.bundle, "-o", out, "--sort", "--check", *words, study.images("test"))
    assert done.exit_code == 0, done.output
    rows = read_csv(out)
    logits = [float(row["logit"]) for row in rows]
    assert logits == sorted(logits, reverse=True)
    assert {row["detector"].partition("+")[2] for row in rows} == {check[1:]}
    flips = Counter(view for row in rows for view in row["flipped"].split())
    assert flips.keys() <= set(CHECKS[views])
    assert all((row["verdict"] == "unsure") == bool(row["flipped"]) for row in rows)
    assert flips
    for view, count in flips.items():
        assert f"{count} under {view}" in done.stderr
    refused = invoke("predict", study.bundle, study.images("test"), "--resume", out, "--sort")
    assert "leave --sort out" in str(refused.exception)


def test_features_give_the_calibration_of_scores(study, tmp_path):
    out, options = tmp_path / "new.ltd", ("--target-fpr", 0.1)
    assert "is a head file; make a bundle" in str(
        invoke("calibrate", study.head, "--on", study.scores("held")).exception
    )
    logits = []
    for source in (study.features("held"), study.scores("held")):
        done = invoke("calibrate", study.bundle, "--on", source, *options, "-o", out)
        assert done.exit_code == 0, done.output
        logits.append(read_bundle(out).manifest.calibration.threshold)
    assert logits[0] == pytest.approx(logits[1], abs=1e-4)


def test_refused_calibrations(study, tmp_path):
    bundle = tmp_path / "detector.ltd"
    shutil.copy(study.bundle, bundle)
    few = invoke("calibrate", bundle, "--on", study.scores("held"))
    assert isinstance(few.exception, DataError)
    assert "at least 99 are needed" in str(few.exception)
    seen = invoke("calibrate", bundle, "--on", study.scores("train"), "--target-fpr", 0.1)
    assert "trained on" in str(seen.exception)
    assert bundle.read_bytes() == study.bundle.read_bytes()
    other = invoke("calibrate", bundle, "--on", tmp_path / "none.csv")
    assert "none.csv does not exist" in str(other.exception)


def test_results_of_unlabelled_images_calibrate(study, real, tmp_path):
    bundle, results = tmp_path / "detector.ltd", tmp_path / "results.csv"
    shutil.copy(study.bundle, bundle)
    assert invoke("predict", bundle, real, "-o", results).exit_code == 0
    assert "say it with --images" in str(invoke("calibrate", bundle, "--on", results).exception)
    assert "at least 100" in str(invoke("calibrate", bundle, "--on", results, "--images", "unlabelled").exception)
    done = invoke("calibrate", bundle, "--on", results, "--images", "real", "--target-fpr", 0.1)
    assert done.exit_code == 0, done.output
    stale = invoke("calibrate", bundle, "--on", results, "--images", "real", "--target-fpr", 0.1)
    assert "predict again" in str(stale.exception)


def test_exit_status_of_broken_images(study, real, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"x")
    nothing = invoke("predict", study.bundle, folder)
    assert isinstance(nothing.exception, DataError)
    assert nothing.exception.exit_code == 3
    assert "failed" in nothing.stdout
    shutil.copy(real / "00000.png", folder / "good.png")
    assert invoke("predict", study.bundle, folder).exit_code == 0
    strict = invoke("predict", study.bundle, folder, "--strict", "--format", "csv")
    assert strict.exception.exit_code == 3
    assert len(strict.stdout.splitlines()) == 3


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
    kept = read_csv(tmp_path / "out.csv")
    assert [row["path"] for row in kept] == paths[:3]
    done = invoke("predict", study.bundle, *paths, "--resume", tmp_path / "out.csv")
    assert "3 there already" in done.stderr
    assert read_csv(tmp_path / "out.csv")[:3] == kept
    assert [row["path"] for row in read_csv(tmp_path / "out.csv")] == paths
