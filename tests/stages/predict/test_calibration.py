"""Thresholds and bands keep what they promise, on average over calibrations, and refuse too few images."""

import re

import numpy as np
import pytest
from scipy.stats import norm

from stages.evaluate.scores import sigmoid
from stages.measure.metrics import UNLABELLED_DRAWS, measure
from stages.predict.calibration import (
    calibrate,
    calibrate_unlabelled,
    conformal_lower_threshold,
    conformal_threshold,
)
from stages.predict.manifest import Calibration
from storage.errors import DataError

DRAWS = 400
ODDS = np.array([-2.0, 0.0, 2.0])
RANGES = re.compile(r"between (0\.\d+) and (0\.\d+)")


def draw(seed, images=99):
    random = np.random.default_rng(seed)
    return random.standard_normal(images), 2 + random.standard_normal(images)


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.3, 3), (0.5, 1), (1 / 3, 2)])
def test_needs_one_over_the_rate_less_one_images(rate, needed):
    assert conformal_threshold(np.arange(needed, dtype=float), rate) == needed - 1
    with pytest.raises(DataError, match=f"at least {needed} are needed"):
        conformal_threshold(np.arange(needed - 1, dtype=float), rate)
    with pytest.raises(DataError, match=f"synthetic .* at least {needed} are needed"):
        conformal_lower_threshold(np.arange(needed - 1, dtype=float), rate)


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_new_images_of_the_same_kind_are_wrong_at_most_at_the_rate_on_average(rate):
    fresh_reals, fresh_fakes = draw(10**6, 20_000)
    alarms, misses = [], []
    for seed in range(DRAWS):
        reals, fakes = draw(seed)
        alarms.append((fresh_reals > conformal_threshold(reals, rate)).mean())
        misses.append((fresh_fakes <= conformal_lower_threshold(fakes, rate)).mean())
    for rates in (alarms, misses):
        error = 3 * np.std(rates) / np.sqrt(DRAWS)
        assert np.mean(rates) <= rate + error + 0.003  # the fresh images are a sample too
        assert np.mean(rates) >= rate - 1 / 100 - error  # and no image is given away


@pytest.mark.parametrize(("images", "fpr", "unsure"), [(99, 0.05, 0.05), (500, 0.01, 0.1)])
def test_the_rates_of_one_calibration_lie_where_the_guarantee_says_as_often_as_it_says(images, fpr, unsure):
    random, labels, inside = np.random.default_rng(2), np.repeat([0, 1], images), []
    stated = calibrate(labels, random.standard_normal(2 * images) + labels, source="x", target_fpr=fpr, unsure=unsure)
    low, high = np.array(RANGES.findall(stated.guarantee), dtype=float).T
    for _ in range(1000):
        reals, fakes = random.standard_normal(images), 1 + random.standard_normal(images)
        rates = [norm.sf(conformal_threshold(reals, fpr)), norm.cdf(conformal_lower_threshold(fakes, unsure), 1)]
        inside.append((low <= rates) & (rates <= high))
    assert np.mean(inside, axis=0) == pytest.approx([0.95, 0.95], abs=0.02)


def log_odds(images, share=0.5, seed=0):
    """Labels and true log odds (of equal shares) of images with unit noise around -1 and 1."""
    random = np.random.default_rng(seed)
    labels = (random.random(images) < share).astype(int)
    return labels, 2 * (np.where(labels == 1, 1, -1) + random.standard_normal(images))


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_probabilities_find_the_scale_and_the_level_of_logits_whatever_the_shares_of_the_classes(share):
    labels, odds = log_odds(20_000, share=share)
    found = calibrate(labels, 3 * odds - 20, source="x", target_fpr=0.05)
    assert found.probabilities(3 * ODDS - 20) == pytest.approx(sigmoid(ODDS), abs=0.03)


def test_a_shifted_level_leaves_no_synthetic_verdict_that_the_probability_denies():
    random = np.random.default_rng(0)
    reals, fakes = random.normal(-8, 1, 500), random.normal(-2, 1, 500)
    found = calibrate(np.repeat([0, 1], 500), np.concatenate([reals, fakes]), source="x", target_fpr=0.01)
    called = fakes[fakes > found.threshold]
    assert (found.probabilities(called) < 0.5).mean() < 0.02
    assert np.median(found.probabilities(fakes)) > 0.99


@pytest.mark.parametrize("gap", [0.0, 6.0])
@pytest.mark.parametrize("unsure", [None, 0.05])
def test_the_verdict_is_synthetic_just_where_the_probability_exceeds_what_it_is_called_above(gap, unsure):
    random = np.random.default_rng(1)
    logits, labels = random.normal(np.repeat([-8, -7 + gap], 200), 1), np.repeat([0, 1], 200)
    for found in (
        Calibration(),
        calibrate(labels, logits, source="x", target_fpr=0.01, unsure=unsure),
        calibrate(labels[:200], logits[:200], source="x", target_fpr=0.01),
        calibrate_unlabelled(logits, source="x", share=0.3),
    ):
        around = np.concatenate([logits, found.threshold + np.array([-1e-3, 0, 1e-3])])
        called = np.array(found.verdicts(around)) == "synthetic"
        assert (called == (found.probabilities(around) > found.synthetic_above)).all()
        assert found.scaling or found.synthetic_above == 0.5


def test_heads_that_cannot_be_calibrated_are_refused():
    reals, fakes = draw(4)
    labels = np.repeat([0, 1], 99)
    with pytest.raises(
        DataError, match=r"x: the mean logit is .* expected a greater one for synthetic; check the labels"
    ):
        calibrate(labels, -np.concatenate([reals, fakes]), source="x", target_fpr=0.05)
    for refused in (np.full(198, 3.0), np.append(reals, np.full(99, np.nan)), np.append(reals, np.full(99, np.inf))):
        with pytest.raises(DataError, match="x: the head gives"):
            calibrate(labels, refused, source="x", target_fpr=0.05)
        with pytest.raises(DataError, match="x: the head gives"):
            calibrate_unlabelled(refused, source="x", share=0.5)
    with pytest.raises(DataError, match="0 held-out real images are too few"):
        calibrate(np.ones(99, int), fakes, source="x", target_fpr=0.05)


def test_reals_alone_set_a_threshold_at_which_the_probability_is_one_half():
    found = calibrate(np.zeros(99, int), draw(1)[0], source="x", target_fpr=0.01)
    assert found.scaling is None
    assert found.threshold == draw(1)[0].max()
    assert found.synthetic_above == 0.5
    with pytest.raises(DataError, match="0 held-out synthetic images"):
        calibrate(np.zeros(99, int), draw(1)[0], source="x", target_fpr=0.01, unsure=0.1)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_unlabelled_images_set_the_threshold_between_the_parts_that_their_share_makes(share):
    fakes = round(400 * share)
    logits = np.random.default_rng(5).permutation(np.append(np.full(400 - fakes, -7.0), np.full(fakes, 1.0)))
    found = calibrate_unlabelled(logits, source="x", share=share)
    assert (found.threshold, found.n_unlabelled, found.synthetic_above) == (-3.0, 400, 0.5)
    assert found.guarantee.startswith("none")
    with pytest.raises(DataError, match="at least 100"):
        calibrate_unlabelled(logits[:99], source="x", share=share)


def test_the_unlabelled_threshold_is_that_of_the_report():
    reals, fakes = draw(6, 200)
    labels, logits = np.repeat([0, 1], 200), np.concatenate([reals, 3 * fakes])
    reported = measure(labels, logits)["unlabelled_accuracy"]
    drawn = np.random.default_rng(0)
    accuracies = []
    for _ in range(UNLABELLED_DRAWS):
        rows = drawn.choice(400, 100, replace=False)
        found = calibrate_unlabelled(np.sort(logits)[rows], source="x", share=0.5)
        rest = np.setdiff1d(np.arange(400), rows)
        called = np.array(found.verdicts(np.sort(logits)[rest])) == "synthetic"
        accuracies.append((called == labels[np.argsort(logits)][rest]).mean())
    assert reported == pytest.approx(np.mean(accuracies))
