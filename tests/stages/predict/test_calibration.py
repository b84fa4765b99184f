"""Thresholds and bands keep what they promise, on average over calibrations, and refuse too few images."""

import re

import numpy as np
import pytest
from scipy.stats import norm

from stages.predict.calibration import (
    Calibration,
    Isotonic,
    calibrate,
    calibrate_unlabelled,
    conformal_low,
    conformal_threshold,
)
from storage.errors import DataError

DRAWS = 400


def draw(seed, images=99):
    random = np.random.default_rng(seed)
    return random.standard_normal(images), 2 + random.standard_normal(images)


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.3, 3), (0.5, 1), (1 / 3, 2)])
def test_needs_one_over_the_rate_less_one_images(rate, needed):
    assert conformal_threshold(np.arange(needed, dtype=float), rate) == needed - 1
    with pytest.raises(DataError, match=f"at least {needed} are needed"):
        conformal_threshold(np.arange(needed - 1, dtype=float), rate)
    with pytest.raises(DataError, match=f"synthetic .* at least {needed} are needed"):
        conformal_low(np.arange(needed - 1, dtype=float), rate)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_new_images_of_the_same_kind_are_wrong_at_most_at_the_rate_on_average(rate):
    fresh_reals, fresh_fakes = draw(10**6, 20_000)
    alarms, misses = [], []
    for seed in range(DRAWS):
        reals, fakes = draw(seed)
        alarms.append((fresh_reals > conformal_threshold(reals, rate)).mean())
        misses.append((fresh_fakes <= conformal_low(fakes, rate)).mean())
    for rates in (alarms, misses):
        error = 3 * np.std(rates) / np.sqrt(DRAWS)
        assert np.mean(rates) <= rate + error + 0.003  # the fresh images are a sample too
        assert np.mean(rates) >= rate - 1 / 100 - error  # and no image is given away


def test_ties_only_make_it_safer():
    tied = np.repeat([0.0, 1.0], 50)
    assert (tied > conformal_threshold(tied, 0.05)).mean() <= 0.05
    assert (tied <= conformal_low(tied, 0.05)).mean() <= 0.05


def test_the_rate_of_one_calibration_lies_where_the_guarantee_says_as_often_as_it_says():
    random, inside = np.random.default_rng(2), []
    for _ in range(1000):
        found = calibrate(np.zeros(99, int), random.standard_normal(99), source="x", target_fpr=0.05)
        low, high = map(float, re.search(r"between (0\.\d+) and (0\.\d+) in 95 %", found.guarantee).groups())
        inside.append(low <= norm.sf(found.threshold) <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 1000))


def test_the_band_lies_below_the_threshold_and_makes_verdicts():
    reals, fakes = draw(0)
    labels = np.repeat([0, 1], 99)
    found = calibrate(labels, np.concatenate([reals, fakes]), source="x", target_fpr=0.05, unsure=0.05)
    assert found.real_up_to < found.threshold
    logits = np.array([found.real_up_to, found.threshold, np.nextafter(found.threshold, 9), found.real_up_to - 1])
    assert found.verdicts(logits) == ["real", "unsure", "synthetic", "real"]
    assert "exchangeable" in found.guarantee
    assert "marginal" in found.guarantee


def test_classes_far_apart_leave_no_band():
    logits, labels = np.concatenate([np.linspace(-9, -8, 40), np.linspace(8, 9, 40)]), np.repeat([0, 1], 40)
    found = calibrate(labels, logits, source="x", target_fpr=0.05, unsure=0.05)
    assert found.real_up_to == found.threshold
    assert found.verdicts(logits).count("unsure") == 0


def test_temperature_finds_that_logits_are_three_times_too_large():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 20_000)
    true = np.where(labels == 1, 1, -1) + random.standard_normal(20_000) * np.sqrt(1)  # log odds are twice the value
    found = calibrate(labels, 6 * true, source="x", target_fpr=0.05)
    assert found.scaling.value == pytest.approx(3, rel=0.05)
    assert found.probabilities(np.array([6.0]))[0] == pytest.approx(1 / (1 + np.exp(-2)), abs=0.02)


def test_isotonic_rises_stays_inside_and_never_says_never():
    reals, fakes = draw(3)
    labels = np.repeat([0, 1], 99)
    found = calibrate(labels, np.concatenate([reals, fakes]), source="x", target_fpr=0.05, scaling="isotonic")
    probabilities = found.probabilities(np.linspace(-9, 9, 200))
    assert (np.diff(probabilities) >= 0).all()
    assert 0 < probabilities[0] < 0.1
    assert 0.9 < probabilities[-1] < 1


def test_probabilities_speak_of_equal_shares_whatever_the_calibration_images_are():
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal(4000), np.repeat([0, 0, 0, 1], 1000)  # logits that say nothing
    found = calibrate(labels, logits, source="x", target_fpr=0.05, scaling="isotonic")
    assert found.probabilities(np.array([0.0]))[0] == pytest.approx(0.5, abs=0.1)


def test_reals_alone_set_a_threshold_and_leave_probabilities_alone():
    found = calibrate(np.zeros(99, int), draw(1)[0], source="x", target_fpr=0.01)
    assert found.scaling is None
    assert found.threshold == draw(1)[0].max()
    with pytest.raises(DataError, match="0 held-out synthetic images"):
        calibrate(np.zeros(99, int), draw(1)[0], source="x", target_fpr=0.01, unsure=0.1)


def test_unlabelled_images_set_the_threshold_at_their_share():
    reals, fakes = draw(5, 300)
    found = calibrate_unlabelled(np.concatenate([reals, fakes[:100]]), source="x", share=0.25, at_least=100)
    assert found.n_unlabelled == 400
    assert (np.concatenate([reals, fakes[:100]]) > found.threshold).mean() == pytest.approx(0.25, abs=0.01)
    assert found.guarantee.startswith("none")
    with pytest.raises(DataError, match="at least 100"):
        calibrate_unlabelled(reals[:99], source="x", share=0.5, at_least=100)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="above the threshold"):
        Calibration(threshold=0.0, real_up_to=1.0)
    with pytest.raises(ValueError, match="knots"):
        Isotonic(logits=(1.0, 0.0), values=(0.0, 1.0))
