import numpy as np
import pytest

from benchmarks.intervals import METRICS as SIMULATED
from benchmarks.intervals import coverage, significant_sets, type_one
from stages.measure.bootstrap import (
    Resampler,
    difference,
    draw_counts,
    holm,
    interval,
    of_trainings,
)
from stages.measure.metrics import METRICS, measure


def _scores(n, seed, *, decimals=None):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat([0, 1], [n - n // 3, n // 3]))
    logits = random.normal(size=n) + labels
    return labels, logits if decimals is None else np.round(logits, decimals)


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("n", [30, 800])  # 800: enough real images for TPR at 1 % FPR
def test_a_replicate_has_the_metrics_of_the_images_drawn(n, decimals):
    labels, logits = _scores(n, n, decimals=decimals)
    resampler = Resampler(labels, logits, threshold=0.3)
    (counts,) = draw_counts(labels, replicates=15)
    found = resampler.metrics(counts)
    assert list(found) == [metric for metric in METRICS if METRICS[metric].interval]
    for at, drawn in enumerate(counts):
        images = np.repeat(np.arange(n), drawn)
        expected = measure(labels[images], logits[images], threshold=0.3)
        for metric, replicates in found.items():
            if not isinstance(expected[metric], str):
                assert replicates[at] == pytest.approx(expected[metric], abs=1e-12), metric


def test_strata_keep_their_size_and_images_are_drawn_alike():
    strata = np.array([0] * 5 + [1] * 3 + [2])
    counts = np.concatenate(list(draw_counts(strata, replicates=4000)))
    assert (counts[:, :5].sum(axis=1) == 5).all()
    assert (counts[:, 5:8].sum(axis=1) == 3).all()
    assert (counts[:, 8] == 1).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(9), abs=0.06)
    assert counts[:, 0].var() == pytest.approx(4 / 5, abs=0.08)


def test_the_interval_of_a_share_is_of_as_many_images_as_there_are():
    replicates = np.random.default_rng(0).binomial(400, 0.75, 20_000) / 400
    low, high = interval("accuracy", 0.75, replicates, [(200, 200)])
    assert (low, high) == (pytest.approx(0.705, abs=0.003), pytest.approx(0.790, abs=0.003))  # Wilson's
    less_spread = interval("accuracy", 0.75, 0.75 + (replicates - 0.75) / 10, [(200, 200)])
    assert less_spread == pytest.approx((low, high), abs=0.003)  # never of more images than there are


def test_an_interval_has_a_width_where_every_image_is_right():
    right = np.ones(100)
    low, high = interval("accuracy", 1.0, right, [(200, 200)])
    assert (low, high) == (pytest.approx(1 - 3.8415 / 403.8415), 1.0)
    assert interval("ap", 1.0, right, [(30, 270)])[0] == pytest.approx(1 - 4.18 / 34.18, abs=1e-3)
    assert interval("accuracy", 1.0, right, [(200, 200)] * 20)[0] > 0.9995


@pytest.mark.parametrize(("accuracy", "size"), [(0.92, (200, 200)), (0.986, (30, 270))])
def test_intervals_cover_the_truth_as_often_as_they_say(accuracy, size):
    """Of one set and of the mean over 20 sets; 120 and 8 studies, always the same ones."""
    single, mean, _ = coverage(accuracy, size, studies=120, means=8)
    assert set(single) == set(SIMULATED)
    assert all(share >= 0.88 for share in single.values()), single
    assert all(share >= 0.75 for share in mean.values()), mean
    assert min(single.values()) < 0.99, single  # not so wide that they hold always


@pytest.mark.parametrize(("accuracy", "seeds"), [(0.75, 1), (0.92, 3)])
def test_equal_heads_differ_as_seldom_as_the_tests_say(accuracy, seeds):
    found = type_one(accuracy, seeds, studies=60)
    assert 0 < max(found.values()) <= 0.1, found


def test_a_separated_head_is_better_than_chance_in_every_one_of_many_sets():
    assert significant_sets() == {"ap": 37, "roc_auc": 37, "accuracy": 37}


def test_a_difference_of_methods_holds_the_spread_over_trainings():
    replicates = np.random.default_rng(0).normal(0.02, 0.005, 4000)
    weights = difference("ap", [0.92], [0.90], replicates, [(500, 500)])
    assert weights == pytest.approx((0.02, 0.0102, 0.0298, 6.3e-5), abs=3e-4)
    methods = difference("ap", [0.90, 0.92, 0.94], [0.88, 0.90, 0.92], replicates, [(500, 500)])
    assert methods.value == pytest.approx(0.02)
    assert methods.low < 0 < methods.high
    assert methods.p == pytest.approx(0.29, abs=0.02)  # Welch's test, with 4.6 degrees of freedom
    assert difference("accuracy", [0.9], [0.9], np.zeros(100), [(500, 500)]).p == 1
    assert difference("accuracy", [1.0], [0.5], np.full(100, 0.5), [(200, 200)]).p < 1e-100


def test_one_seed_tells_nothing_of_the_spread_over_trainings():
    assert of_trainings(0.1, 0.01, [0.9], [0.8, 0.9]) == of_trainings(0.1, 0.01)
    low, high = of_trainings(0.92, 0.0, [0.90, 0.92, 0.94])[1:3]
    assert (high - low) / 2 == pytest.approx(4.3027 * (0.0004 / 3) ** 0.5, rel=1e-4)  # Student's, 2 degrees of freedom


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
