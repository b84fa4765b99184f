from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stages.analyse.profiles import transition_profiles, window_aucs
from storage.errors import DataError


def _direct(cls):
    """Cosine and distance of one image's tokens (L, D), as the definitions say."""
    exact = cls.astype(np.float64)
    pairs = list(pairwise(exact))
    cosine = [float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))) for a, b in pairs]
    return np.array([cosine, [float(np.sqrt(((b - a) ** 2).sum())) for a, b in pairs]]).T


@pytest.fixture
def tokens():
    return np.random.default_rng(1).normal(3, 2, (40, 6, 16)).astype(np.float16)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_statistics_are_those_of_the_definitions_whatever_the_batch_size(tokens, size):
    groups = np.arange(40) % 3
    batches = [(tokens[i : i + size], groups[i : i + size]) for i in range(0, 40, size)]
    profile = transition_profiles(batches, blocks=range(6), groups=3)
    moves = np.stack([_direct(image) for image in tokens])
    assert profile.transitions.tolist() == [0, 1, 2, 3, 4]
    assert profile.count.tolist() == [14, 13, 13]
    for group in range(3):
        chosen = moves[groups == group]
        np.testing.assert_allclose(profile.mean[group], chosen.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(profile.std[group], chosen.std(axis=0, ddof=1), rtol=1e-9)


def test_float16_tokens_with_large_values_do_not_overflow():
    tokens = np.full((2, 2, 1024), 6e4, dtype=np.float16)
    tokens[:, 1] *= -1
    profile = transition_profiles([(tokens, np.zeros(2, int))], blocks=[0, 1], groups=1)
    assert profile.mean[0, 0, 0] == -1.0
    assert profile.mean[0, 0, 1] == pytest.approx(2 * float(np.float16(6e4)) * 32)
    assert profile.std[0, 0].tolist() == [0.0, 0.0]


def test_no_cosine_is_above_one():
    tokens = np.random.default_rng(0).normal(size=(200, 1, 8)).repeat(2, axis=1)
    seen = []
    transition_profiles([(tokens, np.zeros(200, int))], blocks=[0, 1], groups=1, on_moves=seen.append)
    assert seen[0][:, 0, 0].max() == 1.0


def test_only_neighbouring_blocks_make_transitions(tokens):
    profile = transition_profiles([(tokens[:, :5], np.zeros(40, int))], blocks=[3, 4, 7, 8, 9], groups=1)
    assert profile.transitions.tolist() == [3, 7, 8]
    direct = np.stack([_direct(image) for image in tokens[:, :5]])[:, [0, 2, 3]]
    np.testing.assert_allclose(profile.mean[0], direct.mean(axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        transition_profiles([], blocks=[1, 3], groups=1)


def test_one_image_has_no_spread_and_no_image_no_mean(tokens):
    profile = transition_profiles([(tokens[:1], np.zeros(1, int))], blocks=range(6), groups=2)
    assert np.isnan(profile.std).all()
    assert np.isfinite(profile.mean[0]).all()
    assert np.isnan(profile.mean[1]).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_token_without_direction_is_an_error_naming_row_and_block(tokens, value):
    tokens[13, 4] = value
    batches = [(tokens[:10], np.zeros(10, int)), (tokens[10:], np.zeros(30, int))]
    with pytest.raises(DataError, match="row 13: the CLS token after block 4"):
        transition_profiles(batches, blocks=range(6), groups=1)


def test_a_batch_of_another_shape_is_refused(tokens):
    with pytest.raises(ValueError, match=r"\(N, 5, D\).*\(40, 6, 16\)"):
        transition_profiles([(tokens, np.zeros(40, int))], blocks=range(5), groups=1)
    with pytest.raises(ValueError, match=r"\(N,\) groups, got .*\(39,\)"):
        transition_profiles([(tokens, np.zeros(39, int))], blocks=range(6), groups=1)


def test_windows_are_those_whose_transitions_are_all_there():
    def windows(transitions):
        moves = np.ones((2, len(transitions), 2))
        return [
            found[:2] for found in window_aucs(moves, transitions, np.array([True, False]), np.array([False, True]))
        ]

    assert windows([0, 1, 2]) == [(0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (0, 4)]
    assert windows([0, 1, 5]) == [(0, 2), (1, 2), (5, 2), (0, 3)]
    assert max(n for _, n in windows(range(23))) == 9


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
