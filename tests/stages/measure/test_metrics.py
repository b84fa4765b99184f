import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_sets import SCORE_SETS
from sklearn.metrics import average_precision_score, balanced_accuracy_score, brier_score_loss, roc_auc_score

from stages.evaluate.scores import sigmoid
from stages.measure.metrics import METRICS, calibrated_threshold, measure

SMALL = ("tpr_at_fpr_1", "tpr_at_fpr_01", "unlabelled_accuracy")


def _labels(*values):
    return np.array(values, dtype=np.int8)


@pytest.mark.parametrize("name", SCORE_SETS)
def test_values_are_those_of_scikit_learn_and_of_counting(name):
    labels, logits = SCORE_SETS[name]
    found = measure(labels, logits, threshold=0.5)
    assert found["ap"] == pytest.approx(average_precision_score(labels, logits), abs=1e-12)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits > 0), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, sigmoid(logits)), abs=1e-12)
    right = [float((logit > 0) == (label == 1)) for label, logit in zip(labels, logits, strict=True)]
    real = [hit for hit, label in zip(right, labels, strict=True) if label == 0]
    fake = [hit for hit, label in zip(right, labels, strict=True) if label == 1]
    assert found["accuracy"] == pytest.approx(statistics.mean(right))
    assert found["accuracy_real"] == pytest.approx(statistics.mean(real))
    assert found["accuracy_fake"] == pytest.approx(statistics.mean(fake))
    for threshold in (-5.0, -2.0, 0.0, 0.25, 0.5, 2.0, 5.0):  # on ties, between and beyond them
        expected = np.mean((logits > threshold) == (labels == 1))
        assert measure(labels, logits, threshold=threshold)["calibrated_accuracy"] == pytest.approx(expected, abs=1e-12)
    assert {metric for metric, value in found.items() if isinstance(value, str)} <= set(SMALL)
    assert list(found) == list(METRICS)


@pytest.mark.parametrize("name", SCORE_SETS)
def test_the_oracle_is_the_best_of_all_thresholds(name):
    labels, logits = SCORE_SETS[name]
    found = measure(labels, logits)
    tried = [np.mean((logits > threshold) == (labels == 1)) for threshold in [-np.inf, *logits]]
    assert found["oracle_accuracy"] == pytest.approx(max(tried), abs=1e-12)


def test_tpr_is_that_of_the_best_threshold_within_the_false_positive_rate():
    random = np.random.default_rng(1)
    labels = np.repeat(_labels(0, 1), [5500, 400])
    logits = np.round(random.normal(0, 1, 5900) + 1.5 * labels, 2)
    found = measure(labels, logits)
    for value, rate in ((found["tpr_at_fpr_1"], 0.01), (found["tpr_at_fpr_01"], 0.001)):
        allowed = [t for t in [*logits, np.inf] if np.mean(logits[labels == 0] > t) <= rate]
        assert value == pytest.approx(max(np.mean(logits[labels == 1] > t) for t in allowed))


def test_a_rate_below_one_image_is_undefined():
    labels = np.repeat(_labels(0, 1), [4999, 50])
    found = measure(labels, np.linspace(-1, 1, 5049))
    assert found["tpr_at_fpr_1"] == 1.0
    assert found["tpr_at_fpr_01"] == "4999 real images, fewer than the 5,000 that this rate needs"
    assert measure(np.append(labels, _labels(0)), np.zeros(5050))["tpr_at_fpr_01"] == 0.0


def test_the_calibration_error_is_that_of_bins_counted_by_hand():
    labels = _labels(0, 1, 1, 0)
    scores = np.array([0.05, 0.06, 0.95, 0.99])
    found = measure(labels, np.log(scores / (1 - scores)))
    assert found["ece"] == pytest.approx((2 * abs(0.055 - 0.5) + 2 * abs(0.97 - 0.5)) / 4)
    scores = np.array([0.61, 0.69])  # in two of 15 bins, in one of 10
    assert measure(_labels(0, 1), np.log(scores / (1 - scores)))["ece"] == pytest.approx((0.61 + 0.31) / 2)
    assert measure(labels, np.where(labels == 1, 800.0, -800.0))["ece"] == 0.0


def test_the_unlabelled_threshold_repairs_a_shifted_score():
    random = np.random.default_rng(2)
    labels = np.repeat(_labels(0, 1), 400)
    logits = random.normal(-6, 1, 800) + 6 * labels
    found = measure(labels, logits)
    assert found["accuracy"] < 0.8
    assert 0.97 < found["unlabelled_accuracy"] <= 1
    # separated without error: the images that set the threshold are left out of the count, above and below
    assert measure(labels, 100.0 * labels)["unlabelled_accuracy"] == 1.0
    assert isinstance(measure(labels[300:500], logits[300:500])["unlabelled_accuracy"], float)
    few = measure(labels[300:499], logits[300:499])["unlabelled_accuracy"]
    assert few == "199 images, fewer than twice the 100 that set the threshold"


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([-1e3, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1e3])), min_size=1),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_changes_nothing(rows, random):
    shuffled = random.sample(rows, len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.measure.metrics.UNLABELLED", 2)
        one, other = (
            measure(_labels(*(r[0] for r in part)), np.array([r[1] for r in part]), threshold=-0.1)
            for part in (rows, shuffled)
        )
    assert one == other


@pytest.mark.parametrize(
    ("labels", "side", "reason"),
    [(_labels(1, 1), "accuracy_fake", "no real images"), (_labels(0, 0), "accuracy_real", "no synthetic images")],
)
def test_what_needs_both_classes_is_undefined_with_its_reason(labels, side, reason):
    found = measure(labels, np.ones(2), threshold=0.0)
    assert found == dict.fromkeys(METRICS, reason) | {side: 1.0 if side == "accuracy_fake" else 0.0}


def _balanced(labels, logits, threshold):
    return (np.mean(logits[labels == 0] <= threshold) + np.mean(logits[labels == 1] > threshold)) / 2


@pytest.mark.parametrize("name", SCORE_SETS)
def test_the_calibrated_threshold_has_the_greatest_balanced_accuracy(name):
    labels, logits = SCORE_SETS[name]
    best = max(_balanced(labels, logits, threshold) for threshold in [-np.inf, *logits])
    assert _balanced(labels, logits, calibrated_threshold(labels, logits)) == pytest.approx(best, abs=1e-12)


def test_the_calibrated_threshold_is_halfway_in_the_widest_of_equally_good_gaps():
    assert calibrated_threshold(np.array([0, 0, 1, 1]), np.array([-9.0, -2.0, 4.0, 5.0])) == 1.0
    assert calibrated_threshold(np.array([0, 1, 0, 1]), np.array([0.0, 1.0, 2.0, 9.0])) == 5.5
    assert calibrated_threshold(np.array([0, 0]), np.array([0.0, 1.0])) is None


@pytest.mark.parametrize("low", [1.0, np.nextafter(1.0, 2)])  # halfway is rounded to the one, then to the other
def test_a_threshold_between_neighbouring_floats_still_separates_them(low):
    high = np.nextafter(low, 2)
    threshold = calibrated_threshold(np.array([0, 1]), np.array([low, high]))
    assert not low > threshold
    assert high > threshold
