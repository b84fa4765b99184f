"""A profile is put to use on a data root: what is there, what is missing, what it takes, and when it is refused."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import ltdpipe
from pipeline.params import params_from
from pipeline.prepare import Plan, check_room, limited, plan
from pipeline.profiles import profile_text
from running import PROJECT
from stages.demo.miniatures import run as make_miniatures
from storage.errors import DataError, ResourceError, SettingError
from storage.manifest import read_manifest
from storage.views import expand_views

USE = ("profile", "use", "paper", "--rate", "10", "--set", "extract.backbone=demo-vit")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_miniatures(root=root, test_images=1, training_images=2)
    return root


@pytest.fixture
def data(data_root, tmp_path):
    """A copy of the data root that a test may damage."""
    return shutil.copytree(data_root, tmp_path / "data")


def run(*arguments, refused=None):
    """Run a command in this process; what it said, with the error of the kind that it is ``refused`` with."""
    done = CliRunner().invoke(ltdpipe, arguments, env={"COLUMNS": "200"})
    assert refused or done.exception is None, done.exception
    assert not refused or isinstance(done.exception, refused), done.output
    return f"{done.output}{done.exception or ''}"


def use(data, *more, refused=None):
    return run(*USE, "--data", str(data), *more, refused=refused)


def test_every_corpus_is_listed_scanned_and_planned(project, data_root):
    said = use(data_root)
    for line in (
        "16 of 16 sets",
        "8 of 8 sets",
        "13 of 13 sets",
        "set biggan: 1 real, 1 synthetic; published: 2000 real",
    ):
        assert line in said
    manifests = {path.stem: len(read_manifest(path)) for path in (project / "corpora").glob("*.parquet")}
    assert set(manifests) == {"progan", "sdv14", "ufd", "genimage", "drct2m"}
    # of training images, no size is published
    assert re.search(r"^progan: 8 images\n(?!  )", said, re.M)
    assert manifests["drct2m"] == 13 + 1  # the shared real image is listed once
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert params["extract"]["backbone"] == "demo-vit"
    assert str(data_root) not in (project / "params.yaml").read_text()
    # the roots are found again, and a second use does not take the file for an edit
    assert "8 real, 8 synthetic" in run("scan", "--corpus", "genimage")
    use(data_root)


def test_missing_sets_are_named_and_the_study_goes_on_with_the_rest(project, data):
    shutil.rmtree(data / "genimage" / "wukong")
    shutil.rmtree(data / "genimage" / "VQDM")
    said = use(data)
    assert "6 of 8 sets; missing: wukong, vqdm" in said
    assert "UFD in distribution (a), the authors': its diffusion sets share 2 real images" in said
    assert (project / "corpora" / "genimage.parquet").exists()


def test_the_re_pack_of_ufd_is_told_from_the_authors_distribution(project, data):
    diffusion = data / "ufd" / "diffusion_datasets"
    for fakes in diffusion.glob("*/1_fake"):
        shutil.copytree(diffusion / "laion" / "0_real", fakes.parent / "0_real")
    for pool in ("laion", "imagenet"):
        shutil.rmtree(diffusion / pool)
    said = use(data)
    assert "16 of 16 sets" in said
    assert "UFD in distribution (b), a re-pack: its diffusion sets have real images of their own" in said


def test_a_folder_that_is_not_below_the_data_root_is_no_matter_of_the_environment(project, data):
    shutil.rmtree(data / "genimage")
    said = use(data, refused=DataError)
    assert "image folder 'genimage' does not exist" in said
    assert "give the folder that holds it with --data" in said
    assert "LTDPIPE_DATA" not in said


def test_a_missing_benchmark_is_refused_before_anything_is_written_unless_it_may_be_left_out(project, data):
    shutil.rmtree(data / "genimage")
    before = (project / "params.yaml").read_text()
    assert "not found: genimage; docs/data.md" in use(data, refused=DataError)
    assert (project / "params.yaml").read_text() == before
    assert not (project / "corpora").exists()
    use(data, "--skip-missing")
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert params["evaluate"]["corpora"] == ["ufd", "drct2m"]
    assert "genimage" not in params["corpora"]


def test_a_study_without_its_training_images_is_refused(project, data):
    shutil.rmtree(data / "forensynths")
    assert "trains on progan, not found" in use(data, "--skip-missing", refused=DataError)


def test_a_small_study_keeps_the_shape(project, data_root):
    use(data_root, "--limit", "1")
    manifest = read_manifest(project / "corpora" / "progan.parquet")
    assert sorted(zip(manifest["category"].to_pylist(), manifest["label"].to_pylist(), strict=True)) == [
        (category, label) for category in ("chair", "tvmonitor") for label in (0, 1)
    ]


def test_a_larger_limit_keeps_what_a_smaller_one_chose(project, data_root):
    use(data_root)
    manifest = read_manifest(project / "corpora" / "progan.parquet")
    one, two = (set(limited(manifest, limit)["path"].to_pylist()) for limit in (1, 2))
    assert one < two == set(manifest["path"].to_pylist())
    shuffled = manifest.take(np.arange(len(manifest))[::-1].copy())
    assert set(limited(shuffled, 1)["path"].to_pylist()) == one


def test_what_cannot_fit_is_refused_with_the_numbers():
    needed = Plan({"a": 10}, {"a": 50}, {"a": 3 * 10**9}, 2 * 10**9)
    with pytest.raises(ResourceError, match=r"need 3\.0 GB and 2\.0 GB are free"):
        check_room(needed)
    assert needed.hours(50 / 3600) == pytest.approx(1)


def test_the_plan_counts_bytes_by_tap_block_and_view(tmp_path):
    changes = ("extract.taps=[cls, grid, embedding]", "extract.grid=2", "extract.blocks=11-19", "evaluate.match=[]")
    params = params_from(profile_text("demo", changes), "demo")
    manifests = {name: pa.table({"path": ["a", "b", "c"]}) for name in ("demo-train", "demo-test")}
    planned = plan(params, manifests, tmp_path / "not" / "there" / "yet")
    views = {name: len(expand_views(params.corpora[name].views)) for name in manifests}
    assert views["demo-test"] == 2
    assert planned.passes == {name: 3 * count for name, count in views.items()}
    # float16: nine blocks of width 128 for the class token and for four grid cells, and 64 of the embedding
    image = 2 * (9 * 128 * (1 + 4) + 64)
    assert planned.bytes == {name: passes * image for name, passes in planned.passes.items()}
    assert planned.free_bytes > 0


def test_a_wrong_change_is_named(project):
    for wrong, message in (
        (("--set", "train.lrr=1"), "profile paper: train.lrr: unknown key"),
        (("--set", "nonsense"), "--set 'nonsense': expected KEY=VALUE"),
        (("--set", "=1"), "--set '=1': expected KEY=VALUE"),
        (("--set", "train.lr=["), "--set 'train.lr=[': '[' is no valid YAML"),
        (("--set", "study.name=a"), "--set 'study.name=a': 'study' holds no keys"),
        (("--limit", "2"), "do nothing without --data"),
    ):
        assert message in run(*USE[:3], *wrong, refused=SettingError)


def test_numbers_in_powers_of_ten_are_numbers_and_a_corpus_that_nothing_uses_may_be_left_out(monkeypatch):
    monkeypatch.chdir(PROJECT)
    text = profile_text("paper", ("train.lr=1e-4", "corpora.spare={root: nowhere}"), ("spare", "genimage"))
    content = yaml.safe_load(text)
    assert content["train"]["lr"] == 1e-4
    assert set(content["corpora"]) == {"progan", "sdv14", "ufd", "drct2m"}
    assert content["evaluate"]["corpora"] == ["ufd", "drct2m"]
    assert "genimage" not in yaml.safe_load(profile_text("paper", without=("genimage",)))["corpora"]


def test_only_edits_of_the_users_own_keep_a_profile_from_being_replaced(project):
    run("profile", "use", "ufd")
    run("profile", "use", "genimage", "--set", "train.epochs=2")
    run("profile", "use", "demo", "--set", "train.epochs=2")
    params = project / "params.yaml"
    params.write_text(params.read_text() + "# mine\n")
    assert "has edits that are not committed" in run("profile", "use", "demo", refused=SettingError)
    run("profile", "use", "demo", "--force")
    assert params.read_text() == (PROJECT / "profiles" / "demo.yaml").read_text()
