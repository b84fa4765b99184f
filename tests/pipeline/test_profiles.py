"""A profile is put to use on a data root: what is there, what is missing, what it takes, and when it is refused."""

import re
import shutil

import numpy as np
import pytest
import yaml

from pipeline.params import params_from
from pipeline.plan import Plan
from pipeline.profiles import limited, use
from running import commit, demo_params, invoke
from stages.demo.miniatures import run as make_miniatures
from stages.extract.registry import BACKBONES
from storage.errors import DataError, SettingError
from storage.manifest import read_manifest


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_miniatures(root=root, test_images=1, training_images=2)
    return root


@pytest.fixture
def data(data_root, tmp_path):
    """A copy of the data root that a test may damage."""
    return shutil.copytree(data_root, tmp_path / "data")


def put_to_use(data, reporter, **options):
    use("paper", data, reporter, **{"limit": None, "skip_missing": False, "force": False} | options)
    return reporter.notes


def run(*arguments, refused=None):
    """Run a command in this process; what it said, with the error of the kind that it is ``refused`` with."""
    done = invoke(*arguments, env={"COLUMNS": "200"})
    assert refused or done.exception is None, done.exception
    assert not refused or isinstance(done.exception, refused), done.output
    return f"{done.output}{done.exception or ''}"


def test_every_corpus_is_listed_scanned_and_planned(project, data_root):
    profile = yaml.safe_load((project / "profiles" / "paper.yaml").read_text())
    profile["extract"]["backbone"] = "demo-vit"
    (project / "profiles" / "small.yaml").write_text(yaml.safe_dump(profile))
    said = run("profile", "use", "small", "--data", str(data_root))
    for line in (
        *("16 of 16 sets", "8 of 8 sets", "13 of 13 sets"),
        "set biggan: 1 real, 1 synthetic; published: 2000 real",
        "images/s from files",
        # 16 heads; 133 windows and 24 layers in sweeps; five seeds, two corpora
        *("heads: 160 trainings and their scores, about", "sweeps: 1,570 trainings and their scores, about"),
    ):
        assert line in said
    manifests = {path.stem: len(read_manifest(path)) for path in (project / "corpora").glob("*.parquet")}
    assert set(manifests) == {"progan", "sdv14", "ufd", "genimage", "drct2m"}
    # of training images, no size is published
    assert re.search(r"^progan: 8 images\n(?!  )", said, re.M)
    assert manifests["drct2m"] == 13 + 1  # the shared real image is listed once
    assert yaml.safe_load((project / "params.yaml").read_text()) == profile
    # the roots are found again, and a second use does not take the file for an edit
    assert "8 real, 8 synthetic" in run("scan", "--corpus", "genimage")
    run("profile", "use", "small")


def test_missing_sets_are_named_and_the_study_goes_on_with_the_rest(project, data, reporter):
    shutil.rmtree(data / "genimage" / "wukong")
    shutil.rmtree(data / "genimage" / "VQDM")
    said = put_to_use(data, reporter)
    assert "  6 of 8 sets; missing: wukong, vqdm" in said
    assert "  UFD in distribution (a), the authors': its diffusion sets share 2 real images" in said
    assert (project / "corpora" / "genimage.parquet").exists()


def test_a_missing_benchmark_is_refused_before_anything_is_written_unless_it_may_be_left_out(project, data, reporter):
    shutil.rmtree(data / "genimage")
    before = (project / "params.yaml").read_text()
    with pytest.raises(DataError, match=r"not found: genimage; docs/data\.md"):
        put_to_use(data, reporter)
    (said,) = (note for note in reporter.notes if "image folder 'genimage' does not exist" in note)
    assert said.endswith("give the folder that holds it with --data")
    assert (project / "params.yaml").read_text() == before
    assert not (project / "corpora").exists()
    put_to_use(data, reporter, skip_missing=True)
    text = (project / "params.yaml").read_text()
    params = yaml.safe_load(text)
    assert params["evaluate"]["corpora"] == ["ufd", "drct2m"]
    assert "genimage" not in params["corpora"]
    assert text.startswith("# The paper's study")


def test_a_small_study_keeps_the_shape_and_a_larger_limit_what_a_smaller_one_chose(project, data_root, reporter):
    put_to_use(data_root, reporter)
    manifest = read_manifest(project / "corpora" / "progan.parquet")
    one, two = (set(limited(manifest, limit)["path"].to_pylist()) for limit in (1, 2))
    assert one < two == set(manifest["path"].to_pylist())
    shuffled = manifest.take(np.arange(len(manifest))[::-1].copy())
    assert set(limited(shuffled, 1)["path"].to_pylist()) == one
    put_to_use(data_root, reporter, limit=1)
    manifest = read_manifest(project / "corpora" / "progan.parquet")
    assert sorted(zip(manifest["category"].to_pylist(), manifest["label"].to_pylist(), strict=True)) == [
        (category, label) for category in ("chair", "tvmonitor") for label in (0, 1)
    ]


def test_the_plan_counts_trainings_and_scores():
    profile = demo_params()
    profile |= {"heads": {"ltd": {"type": "ltd", "selection": "halving", "candidates": [4, 9]}}, "sweeps": {}}
    profile["sweeps"] = {"window": ["demo-train"], "layer": []}
    profile["train"] |= {"epochs": 3, "validation_share": 0.2}
    plan = Plan.of(params_from(yaml.safe_dump(profile), "demo"), {"demo-train": 100, "demo-test": 50})
    (head, *swept), seeds = plan.work, len(profile["seeds"])
    # two windows to the end; four fifths of the images train, one fifth chooses, two views are scored
    assert (head.trainings, head.trained, head.scored) == (seeds, seeds * 2 * 3 * 80, seeds * (2 * 3 * 20 + 50 * 2))
    assert [work.head.window for work in swept] == [3, 3, 3, 3, 4, 4, 4, 5, 5, 6]
    assert {(work.trained, work.scored) for work in swept} == {(seeds * 3 * 80, seeds * (3 * 20 + 50))}
    seconds = plan.seconds(BACKBONES["demo-vit"])
    assert {kind: trainings for kind, (trainings, _) in seconds.items()} == {"heads": seeds, "sweeps": 10 * seeds}
    assert all(of_kind > 0 for _, of_kind in seconds.values())


def test_a_profile_is_written_over_no_edits_that_are_not_committed(project):
    params, demo = project / "params.yaml", (project / "profiles" / "demo.yaml").read_text()
    (project / "profiles" / "mine.yaml").write_text(demo.replace("study: demo", "study: mine"))
    run("profile", "use", "mine")
    assert "study: mine" in params.read_text()
    params.write_text(params.read_text().replace("lr: 0.001", "lr: 0.5"))
    assert "edits that are not committed" in run("profile", "use", "demo", refused=SettingError)
    assert "lr: 0.5" in params.read_text()
    commit(project, "keep my edit")
    run("profile", "use", "demo")
    assert params.read_text() == demo
    params.write_text("study: half an edit")
    run("profile", "use", "demo", "--force")
    assert params.read_text() == demo


def test_what_is_missing_before_a_study_can_run_is_named(project, tmp_path, monkeypatch):
    monkeypatch.setenv("LTDPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    said = run("profile", "use", "genimage")
    assert "1. list the images of progan, genimage: `ltdpipe profile use genimage --data ROOT`" in said
    assert "2. get the weights of clip-vit-l-14, which are not on this machine: `ltdpipe fetch clip-vit-l-14`" in said
    assert "3. run the study: `dvc repro`" in said
    text = (project / "profiles" / "genimage.yaml").read_text()
    (project / "profiles" / "local.yaml").write_text(text.replace("weights: default", "weights: nowhere.pt"))
    assert "2. put the weights file nowhere.pt there" in run("profile", "use", "local")
    assert "next:\n  1. run the study: `dvc repro`" in run("profile", "use", "demo")
