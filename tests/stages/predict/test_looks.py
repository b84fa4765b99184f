"""The stability check and ten crops."""

import numpy as np
import pytest
from PIL import Image
from test_round_trip import predictions

from stages.predict.calibration import Calibration
from stages.predict.looks import CHECK_VIEWS, Looks, Seen
from storage.errors import SettingError

PLAIN = Calibration()


def checked(logits, calibration=PLAIN):
    return Looks(check=True).judge(Seen("a.png"), np.array(logits, dtype=float), calibration, "d")


def test_a_flip_becomes_unsure_and_names_the_view():
    found = checked([1, 1, -0.1, 1, 1, 1])
    assert (found.logit, found.verdict, found.flipped) == (1.0, "unsure", CHECK_VIEWS[1])
    assert found.spread == pytest.approx(found.probability - 1 / (1 + np.exp(0.1)))
    assert (found.path, found.status, found.detector, found.error) == ("a.png", "ok", "d+check", None)


def test_the_same_verdict_everywhere_stays():
    found = checked(np.linspace(1, 2, 6))
    assert (found.verdict, found.spread, found.flipped) == ("synthetic", pytest.approx(0.15, abs=0.01), "")
    assert checked(-np.linspace(1, 2, 6)).verdict == "real"


def test_a_view_in_the_band_is_no_flip():
    banded = Calibration(threshold=1.0, real_up_to=-1.0)
    assert checked([2, 0, 0, 0, 0, 0], banded).verdict == "synthetic"
    assert checked([2, 0, 0, 0, 0, -2], banded).verdict == "unsure"


def test_a_view_that_could_not_be_made_is_left_out():
    found = checked([1, np.nan, 1, 1, 1, 1])
    assert (found.verdict, found.spread, found.flipped) == ("synthetic", 0.0, "")


def test_check_scores_the_listed_views(study, detector):
    path = study.images("test") / "real" / "00000.png"
    plain = predictions(detector, path)[0]
    checked = predictions(detector, path, looks=Looks(check=True))[0]
    assert checked.logit == pytest.approx(plain.logit, abs=1e-3)
    assert checked.spread > 0
    assert checked.detector == f"{plain.detector}+check"
    with Image.open(path) as image:
        smaller = image.convert("RGB").resize([int(side * 0.9) for side in image.size], Image.Resampling.LANCZOS)
    logits = [plain.logit, detector.score([smaller])[0].logit]
    probabilities = detector.calibration.probabilities(np.array(logits))
    assert checked.spread >= abs(probabilities[0] - probabilities[1]) - 1e-4


def test_ten_crops_are_averaged(study, detector):
    with Image.open(study.images("test") / "real" / "00001.png") as whole:
        image = whole.convert("RGB").crop((0, 0, 224, 224))
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = np.mean([one.logit for one in detector.score([image, mirrored])])
    # of an image as large as a crop, all ten are the image or its mirror image
    assert detector.score([image], tencrop=True)[0].logit == pytest.approx(expected, abs=1e-3)


def test_each_of_the_ten_crops_counts_the_same():
    logits = 2.0 ** np.arange(10)
    found = Looks(tencrop=True).judge(Seen(None), logits, PLAIN, "d")
    assert (found.logit, found.spread, found.detector) == (102.3, None, "d+tencrop")


def test_a_crop_without_a_logit_fails_the_image():
    found = Looks(tencrop=True).judge(Seen("a.png"), np.array([1.0] * 9 + [np.nan]), PLAIN, "d")
    assert (found.status, found.verdict, found.logit) == ("failed", None, None)
    assert "not finite" in found.error


def test_the_two_are_not_combined():
    with pytest.raises(SettingError, match="cannot be combined"):
        Looks(check=True, tencrop=True)


def test_an_image_that_no_encoder_takes_is_scored_without_that_view(detector):
    wide = Image.new("RGB", (17_000, 224))  # WebP stops at 16,383
    found = detector.score([wide], check=True)[0]
    assert found.status == "ok"
    assert found.error.startswith("view:")
