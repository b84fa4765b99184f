import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stages.analyse.discrimination import window_aucs, windows_of


def test_windows_are_those_whose_transitions_are_all_there():
    assert windows_of([0, 1, 2]) == [(0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (0, 4)]
    assert windows_of([0, 1, 5]) == [(0, 2), (1, 2), (5, 2), (0, 3)]
    assert max(n for _, n in windows_of(range(23))) == 9


def test_aucs_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    moves = np.stack([random.uniform(0.8, 1, (60, 5)), random.uniform(1, 9, (60, 5))], axis=2)
    moves[::7, 2:] = 0.9, 2.1  # ties, behind values that differ
    fake = np.arange(60) % 3 == 0
    real = np.arange(60) % 3 == 1
    chosen = real | fake
    found = {(start, n): (cosine, l2) for start, n, cosine, l2 in window_aucs(moves, range(3, 8), real, fake)}
    assert len(found) == 5 + 4 + 3 + 2 + 1
    for (start, n), (cosine, l2) in found.items():
        window = moves[:, start - 3 : start - 3 + n - 1]
        far = np.round((1 - window[:, :, 0]).mean(axis=1), 12)
        assert cosine == pytest.approx(roc_auc_score(fake[chosen], far[chosen]), abs=1e-12)
        assert l2 == pytest.approx(roc_auc_score(fake[chosen], window[chosen][:, :, 1].mean(axis=1)), abs=1e-12)


def test_a_jump_of_synthetic_images_is_found_where_it_is():
    random = np.random.default_rng(1)
    moves = np.stack([random.normal(0.95, 0.01, (400, 11)), random.normal(5, 1, (400, 11))], axis=2)
    fake = np.arange(400) < 200
    moves[:200, 6, 1] += 3
    found = {(start, n): l2 for start, n, _, l2 in window_aucs(moves, range(11), ~fake, fake)}
    assert max(found, key=found.get) == (6, 2)
    assert found[6, 2] > 0.97
    assert abs(found[2, 2] - 0.5) < 0.1
