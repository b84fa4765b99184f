import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from stages.evaluate.metrics import METRICS, Mean, Metrics, mean_of, mean_over_seeds, mean_over_sets, measure


def _labels(*values):
    return np.array(values, dtype=np.int8)


_RANDOM = np.random.default_rng(5)
_SCORE_SETS = {
    "overlapping": (_RANDOM.integers(0, 2, 300), _RANDOM.normal(0, 2, 300)),
    "ties": (_RANDOM.integers(0, 2, 300), _RANDOM.integers(-2, 3, 300).astype(float)),
    "all equal": (_labels(0, 1, 1, 0, 1), np.full(5, 0.25)),
    "separable": (_labels(0, 0, 0, 1, 1), np.array([-3.0, -2.0, -1.0, 1.0, 2.0])),
    "inverted": (_labels(1, 1, 1, 0, 0), np.array([-3.0, -2.0, -1.0, 1.0, 2.0])),
    "imbalanced": (np.repeat(_labels(0, 1), [57, 3]), _RANDOM.normal(0, 1, 60)),
    "exactly at the threshold": (_labels(0, 1, 0, 1), np.zeros(4)),
    "tiny": (_RANDOM.integers(0, 2, 100), _RANDOM.normal(0, 1e-9, 100)),
    "huge": (_RANDOM.integers(0, 2, 100), _RANDOM.normal(0, 1e3, 100)),
}


@pytest.mark.parametrize("name", _SCORE_SETS)
def test_values_are_those_of_scikit_learn_and_of_counting(name):
    labels, logits = _SCORE_SETS[name]
    found = measure(labels, logits)
    assert found.ap == pytest.approx(average_precision_score(labels, logits), abs=1e-12)
    assert found.roc_auc == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    right = [float((logit > 0) == (label == 1)) for label, logit in zip(labels, logits, strict=True)]
    real = [hit for hit, label in zip(right, labels, strict=True) if label == 0]
    fake = [hit for hit, label in zip(right, labels, strict=True) if label == 1]
    assert found.accuracy == pytest.approx(statistics.mean(right))
    assert found.accuracy_real == pytest.approx(statistics.mean(real))
    assert found.accuracy_fake == pytest.approx(statistics.mean(fake))
    assert (found.n_real, found.n_fake) == (len(real), len(fake))
    assert not found.undefined


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([-1e3, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1e3])), min_size=1),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_changes_nothing(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, other = (measure(_labels(*(r[0] for r in part)), np.array([r[1] for r in part])) for part in (rows, shuffled))
    assert one == other


def test_logits_where_the_sigmoid_saturates_keep_their_order():
    labels = _labels(0, 0, 1, 1)
    logits = np.array([999.0, 998.0, 1000.0, 1001.0])
    assert measure(labels, logits).roc_auc == 1.0
    assert measure(labels, -logits).roc_auc == 0.0


def test_float16_logits_are_compared_in_float64():
    labels, logits = _labels(0, 1, 0, 1), np.array([-1.5, 2.5, 0.5, 0.25])
    assert measure(labels, logits.astype(np.float16)) == measure(labels, logits)


def test_a_logit_of_exactly_zero_says_real():
    found = measure(_labels(0, 1), np.zeros(2))
    assert (found.accuracy_real, found.accuracy_fake) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "missing", "reason"),
    [
        (_labels(1, 1), {"ap", "roc_auc", "accuracy_real"}, "no real images"),
        (_labels(0, 0), {"ap", "roc_auc", "accuracy_fake"}, "no synthetic images"),
        (_labels(), set(METRICS), "no images"),
    ],
)
def test_what_cannot_be_computed_is_undefined_with_its_reason(labels, missing, reason):
    found = measure(labels, np.ones(len(labels)))
    assert {metric for metric in METRICS if found.value(metric) is None} == missing
    assert found.undefined == dict.fromkeys(missing, reason)


def test_logits_that_are_not_finite_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 that are not"):
        measure(_labels(0, 1), np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        measure(_labels(0, 1), np.zeros(3))


def test_a_mean_covers_only_defined_values_and_says_so():
    assert mean_of([0.5, None, 1.0]) == Mean(0.75, pytest.approx(math.sqrt(0.125)), 2, 3)
    assert mean_of([0.5, None]) == Mean(0.5, None, 1, 2)
    assert mean_of([None]) == Mean(None, None, 0, 1)
    assert mean_of([]) == Mean(None, None, 0, 0)


def test_spread_over_seeds_is_the_sample_standard_deviation():
    seeds = [Metrics(1, 1, ap=value) for value in (0.9, 0.8, 0.4)]
    mean = mean_over_seeds(seeds, "ap")
    assert mean.value == pytest.approx(0.7)
    assert mean.std == pytest.approx(statistics.stdev([0.9, 0.8, 0.4]))


def test_the_mean_over_sets_averages_the_same_sets_for_every_seed():
    whole = {"a": Metrics(1, 1, ap=0.8), "b": Metrics(1, 1, ap=0.6), "c": Metrics(1, 0)}
    lacking = {"a": Metrics(1, 1, ap=0.9), "c": Metrics(1, 0)}
    assert mean_over_sets([whole, whole], "abc", "ap") == Mean(pytest.approx(0.7), 0.0, 2, 3)
    assert mean_over_sets([whole, lacking], "abc", "ap") == Mean(
        pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4), 1, 3
    )
    assert mean_over_sets([whole], "c", "ap") == Mean(None, None, 0, 1)


def test_metrics_are_plain_values():
    found = measure(_labels(0, 1), np.array([-1.0, 1.0]))
    assert all(type(found.value(metric)) is float for metric in METRICS)
    assert replace(found, ap=None).value("ap") is None
