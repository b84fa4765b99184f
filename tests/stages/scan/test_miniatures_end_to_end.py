"""Miniatures are scanned, extracted with the demonstration backbone and evaluated by the stages themselves.

The benchmarks of the paper go this way through DVC in tests/pipeline/test_paper_study.py.
"""

import math

import miniatures
import pytest

from stages.evaluate.run import run as evaluate
from stages.evaluate.scores import read_scores
from stages.extract.run import run as extract
from stages.extract.settings import ExtractSettings, Runtime
from stages.heads.settings import LinearSettings, TrainSettings
from stages.measure.frame import measure_sets
from stages.scan.protocols import set_list
from stages.scan.run import run as scan
from stages.train.run import HeadToTrain
from stages.train.run import run as train


@pytest.fixture
def study(tmp_path, own_store, reporter):
    """Takes a corpus through all stages, with a head trained on a miniature of ForenSynths."""

    def extracted(name, **roots):
        manifest, summary = scan(corpus=name, layout="auto", **roots)
        settings, out = ExtractSettings(backbone="demo-vit"), tmp_path / "features" / name
        options = {"geometry": "crop224-pad", "store": own_store, "reporter": reporter, "runtime": Runtime(loaders=0)}
        done = extract(corpus=name, manifest=manifest, settings=settings, out=out, **roots, **options)
        assert (done.failed, done.usable) == ({}, manifest.num_rows)  # shared reals once
        return out / "clean", summary

    def measured(name, **roots):
        """A row for each set, a column for each metric; and the summary of the scan."""
        features, summary = extracted(name, **roots)
        evaluate(features=features, head=head, out=tmp_path / f"{name}.parquet")
        frame = measure_sets(read_scores(tmp_path / f"{name}.parquet"))
        return frame.pivot(index=["set", "n_real", "n_fake"], columns="metric", values="value").reset_index(
            [1, 2]
        ), summary

    miniatures.forensynths(tmp_path / "forensynths")
    features, _ = extracted("forensynths", root=tmp_path / "forensynths")
    settings, head = TrainSettings(epochs=1, validation_share=0.3), tmp_path / "head.safetensors"
    heads = [HeadToTrain(name="linear", settings=LinearSettings(), seed=0, out=head)]
    options = {"settings": settings, "reporter": reporter, "memory": 10**9}
    train(views=[features], validation_view=features, heads=heads, **options)
    return measured


def test_shared_reals_archives_and_parquet_files_go_through_all_stages(tmp_path, study):
    miniatures.synthbuster(tmp_path / "synthbuster", tmp_path / "raise")
    miniatures.drct(tmp_path / "drct", tmp_path / "coco")
    (tmp_path / "parquet").mkdir()
    miniatures.community_parquet(tmp_path / "parquet")
    for name, reals in (("synthbuster", "raise"), ("drct", "coco"), ("parquet", None)):
        roots = {"root": tmp_path / name, "reals": reals and tmp_path / reals}
        found, summary = study(name, **roots)
        assert not [warning for warning in summary.warnings if "unpacked there" not in warning]
        assert set(found.index) == {name for name in summary.sets if not name.startswith("train/")}
        assert (found[["n_real", "n_fake"]] > 0).all(axis=None)
        assert found["ap"].between(0, 1, inclusive="right").all()
        assert found["accuracy"].notna().all()


def test_fakes_without_reals_give_no_numbers_and_true_ones_with_the_reals(tmp_path, study):
    """Posted tables of such folders show AP -0.00 as if it were a result."""
    root, reals = tmp_path / "lacking", tmp_path / "reals"
    miniatures.write(root, "images/sd-turbo/val2017/1.png", "images/sdxl-turbo/val/1_fake/1.png")
    miniatures.write(root, "images/sdxl-turbo/val/0_real/1.png")
    miniatures.write(reals, "val2017/1.jpg", "val2017/2.jpg")
    found, summary = study("lacking", root=root)
    assert any("set sd-turbo has no real image" in warning for warning in summary.warnings)
    lonely = found.loc["sd-turbo"]
    assert lonely[["ap", "roc_auc", "accuracy_real"]].isna().all()
    assert not math.isnan(lonely["accuracy_fake"])
    assert set_list("drct16").covered(["sdxl-turbo"]) == "drct16, 1 of 16 sets"
    found, _ = study("lacking", root=root, reals=reals)
    assert found["n_real"].to_dict() == {"sd-turbo": 2, "sdxl-turbo": 1}  # the latter has reals of its own
    assert found.loc["sd-turbo", "ap"] > 0
    assert not math.isnan(found.loc["sd-turbo", "accuracy"])
