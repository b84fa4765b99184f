"""Whole pictures: a trace in one corner is found, where it lies is said, and the calibration is of the plan used."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from stages.demo.images import GENERATORS, photographs
from stages.evaluate.run import HeadToScore, run_views
from stages.evaluate.scores import read_scores
from stages.extract.run import run as extract
from stages.extract.settings import ExtractSettings
from stages.predict.calibration import run as calibrate
from stages.predict.detector import Detector
from stages.predict.make import run as make_bundle
from stages.reporter import SilentReporter
from stages.scan.run import run as scan
from storage.errors import DataError, SettingError

SIDE = 224


@pytest.fixture(scope="module")
def tiled(study, tmp_path_factory):
    bundle = tmp_path_factory.mktemp("tiles") / "tiles.ltd"
    make_bundle(head=study.head, out=bundle, features=study.features("train"), plan="tiles:4")
    return Detector.load(bundle)


def large(seed, *, corner=None):
    """A photograph of 2 x 2 crops, the crop at ``corner`` with the trace of a generator."""
    draw = np.random.default_rng(seed)
    half = photographs("right")[seed % 2]
    top = int(draw.integers(half.shape[0] - 2 * SIDE + 1)) if half.shape[0] > 2 * SIDE else 0
    image = Image.fromarray(half[top : top + 2 * SIDE]).resize((2 * SIDE, 2 * SIDE))
    if corner is not None:
        box = (*corner, corner[0] + SIDE, corner[1] + SIDE)
        image.paste(GENERATORS["nearest"](image.crop(box)), box)
    return image


def test_the_logit_is_the_maximum_and_every_tile_is_the_crop_at_its_place(detector, tiled):
    image = large(0, corner=(SIDE, 0))
    (found,) = tiled.score([image])
    corners = [(left, top) for top in (0, SIDE) for left in (0, SIDE)]
    alone = detector.score([image.crop((left, top, left + SIDE, top + SIDE)) for left, top in corners])
    assert list(found.tile_logits) == corners
    assert list(found.tile_logits.values()) == pytest.approx([one.logit for one in alone], abs=1e-3)
    assert found.logit == max(found.tile_logits.values())
    assert (found.tiles, found.hottest) == (4, "224,0")
    assert found.mean_logit == pytest.approx(np.mean([one.logit for one in alone]), abs=1e-3)
    assert found.note is None


def test_small_pictures_are_one_tile_and_large_ones_say_how_much_was_seen(detector, tiled):
    small, huge = Image.new("RGB", (100, 120), "grey"), Image.new("RGB", (2240, 2240), "grey")
    (plain,), (one, seen) = detector.score([small]), tiled.score([small, huge])
    assert (one.tiles, one.logit) == (1, pytest.approx(plain.logit, abs=1e-3))
    assert seen.note == "4 tiles show 4% of it, all would be 100"


def test_a_trace_in_one_tile_is_seen(detector, tiled):
    reals = [large(seed) for seed in range(10)]
    fakes = [large(seed, corner=(SIDE * (seed % 2), SIDE * (seed // 2 % 2))) for seed in range(10)]
    labels = [0] * 10 + [1] * 10
    whole = [one.logit for one in tiled.score(reals + fakes)]
    middle = [one.logit for one in detector.score(reals + fakes)]
    assert roc_auc_score(labels, whole) >= max(roc_auc_score(labels, middle), 0.95)


@pytest.fixture(scope="module")
def scores(study, tiled, tmp_path_factory):
    """The scores of evaluation in the view of tiles, and the images."""
    root, images = tmp_path_factory.mktemp("scores"), study.images("test")
    manifest, _ = scan(corpus="test", root=images, layout="folder")
    extract(
        corpus="test", root=images, manifest=manifest, settings=ExtractSettings(backbone="demo-vit"),
        geometry="crop224-pad", views=["tiles:4"], store=root / "store", out=root / "features",
        reporter=SilentReporter(),
    )  # fmt: skip
    run_views(features=root / "features", heads=[HeadToScore(study.head, root / "scores")], finished=root / "finished")
    return root / "scores"


def test_predict_gives_the_scores_of_evaluation(study, tiled, scores):
    greatest, mean = (read_scores(scores / f"tiles-4-{kind}.parquet") for kind in ("max", "mean"))
    found = tiled.score(study.images("test") / path for path in greatest.path)
    assert [one.logit for one in found] == pytest.approx(greatest.logit.tolist(), abs=1e-3)
    assert [one.mean_logit for one in found] == pytest.approx(mean.logit.tolist(), abs=1e-3)


def test_calibration_is_of_the_plan(study, tiled, scores, tmp_path):
    source, out = tiled.bundle.source, tmp_path / "c.ltd"
    calibration = calibrate(bundle=source, on=scores / "tiles-4-max.parquet", out=out, target_fpr=0.1)
    assert calibration.n_real == 20
    for bundle, on, words in (
        (source, study.scores("held"), "scores of the view clean.*in up to 4 tiles"),
        (source, scores / "tiles-4-mean.parquet", "tiles-4-mean"),
        (source, study.features("held"), r"reads them in up to 4 tiles \(view tiles-4-max\)"),
        (study.bundle, scores / "tiles-4-max.parquet", "in one picture"),
    ):
        with pytest.raises(DataError, match=words):
            calibrate(bundle=bundle, on=on, out=out)


def test_plans_that_cannot_be_are_refused(study, tmp_path):
    for plan, words in (("tiles:1", "in 2..64"), ("tencrop", "expected clean or tiles:N"), ("jpeg", "jpeg takes")):
        with pytest.raises(SettingError, match=words):
            make_bundle(head=study.head, out=tmp_path / "b.ltd", plan=plan)
    with pytest.raises(SettingError, match="geometry crop224-pad, found short224-crop"):
        make_bundle(head=study.head, out=tmp_path / "b.ltd", plan="tiles:9", geometry="short224-crop")
