"""The demo study in miniature, through DVC, in a clone: what runs, what is kept, what comes out."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from running import commit, git, ltdpipe, read_csv, run_command, start

HEADS = {"ltd": {"type": "ltd"}, "linear": {"type": "linear"}}


@pytest.fixture(scope="module")
def study(tmp_path_factory, clone_of_project):
    """A clone in which the miniature has run once."""
    clone = clone_of_project(tmp_path_factory.mktemp("study") / "clone")
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["demo"] = {
        "demo-train": {"half": "left", "generators": ["nearest"], "per_set": 16, "seed": 0},
        "demo-test": {"half": "right", "generators": ["nearest", "grid"], "per_set": 8, "seed": 1},
    }
    params["heads"] = HEADS
    params["seeds"] = [0]
    params["train"] |= {"epochs": 2, "batch": 8, "validation_share": 0.25}
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    side = ("dvc", "--wait-for-lock", "repro")
    processes = [start(*side, f"extract@{name}", cwd=clone) for name in params["corpora"]]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]  # two corpora are extracted side by side
    ran, _ = repro(clone)
    assert kinds(ran) == {"train", "evaluate", "analyse", "audit", "report"}
    commit(clone, "first run")
    return clone


def repro(clone):
    """Run `dvc repro`; return the stages that ran and those restored from the run cache."""
    output = run_command("dvc", "repro", cwd=clone).stdout
    ran = re.findall(r"Running stage '(.+?)'", output)
    cached = re.findall(r"Stage '(.+?)' is cached", output)
    return ran, cached


def edit(clone, **changes):
    params = yaml.safe_load((clone / "params.yaml").read_text())
    for key, value in changes.items():
        *section, name = key.split("__")
        (params[section[0]] if section else params)[name.replace("_", "-")] = value
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture
def restored(study):
    """Put parameters, lock file and workspace back after the test."""
    yield
    git(study, "checkout", "-q", ".")
    run_command("dvc", "checkout", "-q", "--force", cwd=study)
    assert git(study, "status", "--porcelain") == ""


def kinds(stages):
    return {stage.partition("@")[0] for stage in stages}


def test_the_run_leaves_tables_metrics_and_a_report_and_a_second_one_does_nothing(study):
    report = study / "reports" / "demo"
    assert "<table" in (report / "report.html").read_text()
    metrics = json.loads((report / "metrics.json").read_text())
    assert set(metrics) == set(HEADS)
    assert {row["set"] for row in read_csv(report / "tables" / "per_set.csv")} == {"nearest", "grid"}
    assert "| head | seeds |" in (report / "tables" / "main.md").read_text()
    assert git(study, "status", "--porcelain") == ""
    output = run_command("dvc", "repro", cwd=study).stdout
    assert "up to date" in output
    assert "Running stage" not in output


@pytest.mark.usefixtures("restored")
def test_a_training_setting_runs_training_and_what_follows_and_going_back_runs_nothing(study):
    before = (study / "params.yaml").read_text()
    edit(study, train__lr=0.01)
    ran, _ = repro(study)
    assert kinds(ran) == {"train", "evaluate", "report"}
    (study / "params.yaml").write_text(before)
    ran, cached = repro(study)
    assert ran == []
    assert kinds(cached) == {"train", "evaluate", "report"}


@pytest.mark.usefixtures("restored")
def test_touched_images_are_not_trained_on_or_scored_again(study, monkeypatch):
    monkeypatch.chdir(study)
    params = yaml.safe_load((study / "params.yaml").read_text())
    params["demo"] = {}  # the corpora are somebody's own: no stage makes their images and manifests
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for corpus in ("demo-train", "demo-test"):
        for image in (study / "data" / "images" / corpus).rglob("*.png"):
            os.utime(image, (1, 1))
        assert ltdpipe(f"scan --corpus {corpus}") == 0
    heads = study / "heads" / "demo-train"
    before = {path: path.read_bytes() for path in heads.rglob("*.safetensors")}
    assert kinds(repro(study)[0]) <= {"extract", "audit", "report"}
    assert ltdpipe("train --trained-on demo-train --head linear --seed 0") == 0
    assert {path: path.read_bytes() for path in heads.rglob("*.safetensors")} == before


@pytest.mark.usefixtures("restored")
def test_a_seed_a_head_or_a_corpus_more_costs_itself_alone(study):
    finished = study / ".ltdpipe" / "store"

    def made():
        """Heads trained so far, and files of scores."""
        return len(list((finished / "heads").glob("*.safetensors"))), len(list((finished / "scores").iterdir()))

    (heads, scores), before = made(), (study / "heads" / "demo-train" / "ltd" / "0.safetensors").read_bytes()
    (rival,) = re.findall(r"^```python\n(.*?)^```", (study / "docs" / "external.md").read_text(), re.M | re.S)
    run_command("python", "-c", rival.replace("rival.csv", "data/rival.csv"), cwd=study)
    edit(
        study,
        external={name: {"file": "data/rival.csv", "corpus": "demo-test"} for name in ("rival", "twin")},
        seeds=[0, 1],
        heads__linear={"type": "linear", "block": 11},
        demo__demo_more={"half": "right", "generators": ["bicubic"], "per_set": 4, "seed": 2},
        corpora__demo_more={"root": "data/images/demo-more", "layout": "folder"},
        evaluate__corpora=["demo-test", "demo-more"],
    )
    more = ("demo-images@demo-more", "extract@demo-more", "analyse@demo-more", "audit@demo-more-demo-train")
    more = (*more, "import-scores@rival", "import-scores@twin")
    assert set(repro(study)[0]) == {*more, "train@demo-train", "evaluate@demo-test", "evaluate@demo-more", "report"}
    report = study / "reports" / "demo"
    found = json.loads((report / "metrics.json").read_text())["rival"]
    assert found["demo-test/nearest"]["ap"] == 1 > found["demo-test/grid"]["ap"]
    for table in ("main", "tests"):  # with the heads: values with intervals, and paired tests
        text = (report / "tables" / f"{table}.csv").read_text()
        assert all(name in text for name in ("ltd", "rival", "twin")), table
    assert made()[0] == heads + 3  # ltd with seed 1, linear with both
    of_test, of_more = 4, 2  # two views, a matched one and what is held out, which is scored once; views and matched
    assert made()[1] == scores + 3 * of_test + 4 * of_more
    assert (study / "heads" / "demo-train" / "ltd" / "0.safetensors").read_bytes() == before


def test_an_experiment_runs_in_a_temporary_copy(study):
    output = run_command("dvc", "exp", "run", "--temp", "-S", "train.lr=5e-5", cwd=study).stdout
    ran = re.findall(r"Running stage '(.+?)'", output)
    assert kinds(ran) == {"train", "evaluate", "report"}
    assert git(study, "status", "--porcelain") == ""


def test_a_colleague_s_clone_pulls_everything_and_has_nothing_to_run(study, tmp_path, monkeypatch):
    run_command("dvc", "remote", "add", "--global", "shared", str(tmp_path / "remote"), cwd=study, HOME=str(tmp_path))
    run_command("dvc", "push", "-q", "-r", "shared", cwd=study, HOME=str(tmp_path))
    git(tmp_path, "clone", "-q", str(study), "theirs")
    theirs = tmp_path / "theirs"
    run_command("dvc", "pull", "-q", "-r", "shared", cwd=theirs, HOME=str(tmp_path))
    assert "up to date" in run_command("dvc", "repro", cwd=theirs).stdout
    assert git(theirs, "status", "--porcelain") == ""
    report = Path("reports", "demo", "report.html")
    before = (study / report).read_bytes()
    assert (theirs / report).read_bytes() == before
    monkeypatch.chdir(theirs)
    assert ltdpipe("report --quiet") == 0
    assert (theirs / report).read_bytes() == before


def test_metrics_plots_and_dag_are_shown(study):
    shown = run_command("dvc", "metrics", "show", cwd=study).stdout
    assert "demo-test.ap" in shown
    assert max(map(len, shown.splitlines())) <= 80
    run_command("dvc", "plots", "show", cwd=study)
    assert (study / "dvc_plots" / "index.html").exists()
    assert "extract@demo-train" in run_command("dvc", "dag", cwd=study).stdout


def test_shards_lie_on_the_disk_once_and_come_back_without_extraction_when_the_store_is_lost(study):
    shards = list((study / "data" / "features" / "demo-test").rglob("*.h5"))
    assert shards
    assert all(shard.stat().st_nlink >= 3 for shard in shards)  # store, DVC cache, workspace
    for stale in (study / ".ltdpipe").rglob("*"):
        if stale.is_file():
            stale.unlink()
    ran, _ = repro(study)
    assert ran == []
