import numpy as np
import pytest
from scipy.stats import binom

from stages.evaluate.paired import bootstrap_p, holm, mcnemar_p


def test_mcnemar_looks_at_disagreements_only():
    right = np.array([True] * 50 + [True] * 8 + [False] * 1)
    other = np.array([True] * 50 + [False] * 8 + [True] * 1)
    assert mcnemar_p(right, other) == pytest.approx(2 * binom.cdf(1, 9, 0.5))
    assert mcnemar_p(right, right) == 1.0


def test_bootstrap_p_is_the_smaller_side_twice_and_never_zero():
    assert bootstrap_p(np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert bootstrap_p(np.ones(99)) == pytest.approx(2 / 100)
    assert bootstrap_p(np.zeros(99)) == 1.0


def test_holm_steps_down_and_leaves_out_what_was_not_tested():
    assert holm([0.01, 0.04, None, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), None, pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
