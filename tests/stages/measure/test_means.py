import math
import statistics

import pytest

from stages.measure.means import Mean, mean_of, mean_over_seeds, mean_over_sets
from stages.measure.metrics import Metrics


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
