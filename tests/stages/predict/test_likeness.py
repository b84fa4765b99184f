"""Are images like those of the calibration? One line for a batch, a column and ``unsure`` for single images."""

import numpy as np
import pytest
from PIL import Image

from running import invoke, read_csv
from stages.predict.calibration import run as calibrate
from stages.predict.likeness import LEAST, Reference
from stages.predict.results import COLUMNS


def drawn(seed, images, *, share=0.5, shift=0.0):
    """Features of two classes and whether they are above the threshold; ``shift`` moves what tells no classes apart."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, 16)).astype(np.float32)
    features[:, 0] += np.where(random.random(images) < share, 3, -3)
    features[:, 1:4] += shift
    return features, features[:, 0] > 0


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_p_is_small_as_often_as_it_says_whatever_the_share_of_synthetic_images(share):
    found = [Reference(*drawn(seed, 50)).p_of_batch(*drawn(1000 + seed, 45, share=share)) for seed in range(40)]
    small = np.mean([p <= 0.25 for p in found if p is not None])
    assert 0.05 < small < 0.45  # within 3 standard errors of 0.25


def test_a_shift_is_found_and_a_batch_that_is_too_small_is_not_judged():
    reference = Reference(*drawn(0, 200))
    assert reference.p_of_batch(*drawn(1, 60, shift=1.0)) == pytest.approx(0.001)
    assert reference.p_of_batch(*drawn(1, LEAST - 1)) is None


def test_ranks_of_single_images_are_uniform_and_what_lies_beyond_all_is_outside():
    ranks = np.concatenate([Reference(*drawn(seed, 100)).ranks(drawn(500 + seed, 50)[0]) for seed in range(10)])
    for level in (0.1, 0.5):
        assert np.mean(ranks <= level) == pytest.approx(level, abs=0.07)
    reference, (far, _) = Reference(*drawn(0, 150)), drawn(2, 20, shift=9.0)
    assert reference.outside(reference.ranks(far)).all()
    few = Reference(*drawn(0, 50))
    assert not few.outside(few.ranks(far)).any()  # 50 images cannot show that one is rarer than one in 100


@pytest.fixture(scope="module")
def calibrated(study, tmp_path_factory):
    out = tmp_path_factory.mktemp("likeness") / "detector.ltd"
    calibrate(bundle=study.bundle, on=study.features("held"), out=out, target_fpr=0.2)
    return out


def predict(*arguments):
    done = invoke("predict", *arguments)
    assert done.exit_code == 0, done.output
    return done


def test_predict_compares_a_batch_and_each_image_with_the_calibration(study, calibrated, tmp_path):
    alike = predict(calibrated, study.images("test"), "-o", tmp_path / "alike.csv")
    assert "no difference from the calibration's images found (p = 0." in alike.stderr
    rows = read_csv(tmp_path / "alike.csv")
    assert list(rows[0]) == [*COLUMNS, "likeness"]
    assert all(0 < float(row["likeness"]) <= 1 for row in rows)
    (tmp_path / "noise").mkdir()
    random = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(random.integers(0, 256, (224, 224, 3), np.uint8)).save(tmp_path / "noise" / f"{number}.png")
    other = predict(calibrated, tmp_path / "noise", "-o", tmp_path / "other.jsonl")
    assert "unlike the calibration's images (p = 0.001): what the calibration promises may not hold" in other.stderr
    few = predict(calibrated, tmp_path / "noise" / "0.png")
    assert f"cannot be told: that takes {LEAST}" in few.stderr
