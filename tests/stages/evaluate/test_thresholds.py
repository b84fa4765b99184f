import numpy as np
import pytest
from score_sets import SCORE_SETS

from stages.evaluate.thresholds import Ranked, calibrated_threshold


def _balanced(labels, logits, threshold):
    return (np.mean(logits[labels == 0] <= threshold) + np.mean(logits[labels == 1] > threshold)) / 2


@pytest.mark.parametrize("name", SCORE_SETS)
def test_the_calibrated_threshold_has_the_greatest_balanced_accuracy(name):
    labels, logits = SCORE_SETS[name]
    best = max(_balanced(labels, logits, threshold) for threshold in [-np.inf, *logits])
    assert _balanced(labels, logits, calibrated_threshold(labels, logits)) == pytest.approx(best, abs=1e-12)


def test_between_separated_classes_it_is_halfway():
    assert calibrated_threshold(np.array([0, 0, 1, 1]), np.array([-9.0, -2.0, 4.0, 5.0])) == 1.0


def test_of_equally_good_cuts_the_widest_gap_is_taken():
    assert calibrated_threshold(np.array([0, 1, 0, 1]), np.array([0.0, 1.0, 2.0, 9.0])) == 5.5


def test_without_both_classes_there_is_none():
    assert calibrated_threshold(np.array([0, 0]), np.array([0.0, 1.0])) is None


@pytest.mark.parametrize("low", [1.0, np.nextafter(1.0, 2)])  # halfway is rounded to the one, then to the other
def test_a_threshold_between_neighbouring_floats_still_separates_them(low):
    high = np.nextafter(low, 2)
    threshold = calibrated_threshold(np.array([0, 1]), np.array([low, high]))
    assert not low > threshold
    assert high > threshold


def test_counts_at_every_cut_are_those_of_counting():
    labels, logits = SCORE_SETS["ties"]
    ranked = Ranked.of(labels, logits)
    thresholds = np.array([-5.0, -2.0, 0.0, 0.5, 2.0, 5.0])
    expected = [int(((logits > t) == (labels == 1)).sum()) for t in thresholds]
    assert ranked.right_over(thresholds).tolist() == expected
