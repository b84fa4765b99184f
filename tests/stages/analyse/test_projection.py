import numpy as np
from sklearn.decomposition import PCA

from stages.analyse.projection import _components, candidate_blocks, project, sample_rows
from storage.features import FeatureTable


def test_a_sample_is_spread_over_groups_and_rows():
    groups = np.repeat([0, 1, 2], [1000, 10, 500])
    rows = sample_rows(groups, 60)
    assert np.bincount(groups[rows]).tolist() == [20, 10, 20]
    assert rows[0] == 0
    assert 999 in rows
    assert (np.diff(rows) > 0).all()
    assert sample_rows(groups[:5], 60).tolist() == [0, 1, 2, 3, 4]


def test_the_blocks_are_the_default_candidates_that_are_stored():
    assert candidate_blocks(range(24), 24) == tuple(range(11, 20))
    assert candidate_blocks([0, 11, 12, 23], 24) == (11, 12)
    assert candidate_blocks([0, 1], 24) == (0, 1)
    assert candidate_blocks([11, 0], 24) == (0, 11)  # one candidate alone has no difference


def test_points_are_the_principal_components_of_tokens_and_of_differences(small_table):
    table, tokens = small_table
    found = project(table, np.arange(len(table)), np.zeros(len(table), dtype=int))
    for at, features in enumerate((tokens, np.diff(tokens, axis=1))):
        exact = PCA(2, svd_solver="full").fit(features.reshape(len(tokens), -1).astype(np.float64))
        np.testing.assert_allclose(found.explained[at], exact.explained_variance_ratio_, rtol=1e-6)
        points = exact.transform(features.reshape(len(tokens), -1).astype(np.float64))
        np.testing.assert_allclose(found.points[:, at], points, atol=1e-5 * np.abs(points).max())


def test_components_are_exact_where_the_spectrum_is_flat():
    features = np.random.default_rng(0).normal(size=(300, 1024)).astype(np.float32)
    exact = PCA(2, svd_solver="full").fit_transform(features.astype(np.float64))
    np.testing.assert_allclose(_components(features)[0], exact, atol=1e-6)


def test_two_images_are_too_few_to_show(small_table):
    table, _ = small_table
    few = FeatureTable.open(table.directory)
    assert project(few, np.arange(2), np.zeros(2, dtype=int)) is None
