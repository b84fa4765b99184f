"""What is measured of each transition, window and projection, against the definitions and scikit-learn."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from stages.analyse.run import projected_blocks, sample_rows
from stages.analyse.transitions import divergences, neighbouring, principal_components, transitions, window_aucs
from storage.errors import DataError


@pytest.fixture
def tokens():
    return np.random.default_rng(1).normal(3, 2, (40, 5, 16)).astype(np.float16)


def test_transitions_are_those_of_the_definitions_between_neighbouring_blocks_only(tokens):
    direct = []
    for image in tokens.astype(np.float64):
        pairs = list(pairwise(image))
        cosine = [float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b))) for a, b in pairs]
        direct.append(np.array([cosine, [float(np.sqrt(((b - a) ** 2).sum())) for a, b in pairs]]).T)
    np.testing.assert_allclose(transitions(tokens, range(5)), direct, rtol=1e-12)
    blocks = [3, 4, 7, 8, 9]
    assert neighbouring(blocks) == [3, 7, 8]
    np.testing.assert_allclose(transitions(tokens, blocks), np.array(direct)[:, [0, 2, 3]], rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_token_without_direction_is_an_error_naming_row_and_block(tokens, value):
    tokens[13, 4] = value
    with pytest.raises(DataError, match="row 113: the CLS token after block 4"):
        transitions(tokens, range(5), first_row=100)


def test_divergence_is_scipys_between_neighbouring_blocks_whatever_the_class_token_gives_to_itself():
    attention = np.random.default_rng(3).dirichlet(np.full(9, 0.3), (6, 4)) * [[[1.0], [0.5], [0.1], [0.9]]]
    found = divergences(attention.astype(np.float16), [3, 4, 7, 8])
    assert found.shape == (6, 2)
    for column, at in enumerate((0, 2)):
        expected = jensenshannon(attention[:, at], attention[:, at + 1], base=2, axis=1) ** 2
        np.testing.assert_allclose(found[:, column], expected, atol=2e-3)  # float16
    apart = np.eye(4)[None, :2]  # two maps that have no patch in common
    assert divergences(apart, [0, 1]).item() == 1
    assert divergences(apart[:, [0, 0]] / 3, [0, 1]).item() == 0


def test_windows_are_those_whose_transitions_are_all_there():
    def windows(starts):
        moved, real = np.ones((2, len(starts), 2)), np.array([True, False])
        return [found[:2] for found in window_aucs(moved, starts, real, ~real)]

    assert windows([0, 1, 2]) == [(0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (0, 4)]
    assert windows([0, 1, 5]) == [(0, 2), (1, 2), (5, 2), (0, 3)]
    assert max(n for _, n in windows(range(23))) == 9


def test_aucs_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    moved = np.stack([random.uniform(0.8, 1, (60, 5)), random.uniform(1, 9, (60, 5))], axis=2)
    moved[::7, 2:] = 0.9, 2.1  # ties, behind values that differ
    fake, real = np.arange(60) % 3 == 0, np.arange(60) % 3 == 1
    chosen = real | fake
    found = {(start, n): (cosine, l2) for start, n, cosine, l2 in window_aucs(moved, range(3, 8), real, fake)}
    assert len(found) == 5 + 4 + 3 + 2 + 1
    for (start, n), (cosine, l2) in found.items():
        window = moved[:, start - 3 : start - 3 + n - 1]
        far = np.round((1 - window[:, :, 0]).mean(axis=1), 12)
        assert cosine == pytest.approx(roc_auc_score(fake[chosen], far[chosen]), abs=1e-12)
        assert l2 == pytest.approx(roc_auc_score(fake[chosen], window[chosen][:, :, 1].mean(axis=1)), abs=1e-12)


def test_components_are_exact_where_the_spectrum_is_flat():
    features = np.random.default_rng(0).normal(size=(300, 1024)).astype(np.float32)
    exact = PCA(2, svd_solver="full").fit(features.astype(np.float64))
    points, shares = principal_components(features)
    np.testing.assert_allclose(points, exact.transform(features.astype(np.float64)), atol=1e-6)
    np.testing.assert_allclose(shares, exact.explained_variance_ratio_, rtol=1e-6)


def test_the_projected_sample_is_spread_over_groups_and_rows_and_reads_the_candidate_blocks():
    groups = np.repeat([0, 1, 2], [1000, 10, 500])
    rows = sample_rows(groups, 60)
    assert np.bincount(groups[rows]).tolist() == [20, 10, 20]
    assert rows[[0, 19]].tolist() == [0, 999]
    assert (np.diff(rows) > 0).all()
    assert projected_blocks(range(24), 24) == list(range(11, 20))
    assert projected_blocks([0, 11, 12, 23], 24) == [11, 12]
    assert projected_blocks([11, 0], 24) == [0, 11]  # one candidate alone has no difference
