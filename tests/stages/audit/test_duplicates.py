"""Equal bytes and near copies."""

import numpy as np

from stages.audit.duplicates import equal_between, equal_groups, near_pairs


def test_equal_bytes():
    assert equal_groups(["a", "b", "a", "c", "a"]) == [[0, 2, 4]]
    assert equal_between(["a", "b", "c"], ["c", "x", "a"]) == [(0, 2), (2, 0)]


def test_near_copies_are_found_across_blocks(reporter, monkeypatch):
    monkeypatch.setattr("stages.audit.duplicates._BLOCK", 7)
    embeddings = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float16)
    embeddings[33] = embeddings[2] * 1.01
    embeddings[6] = embeddings[5]
    found = near_pairs(embeddings, None, 0.98, reporter)
    assert [(pair.first, pair.second) for pair in found] == [(2, 33), (5, 6)]
    assert reporter.done == 40


def test_a_large_common_part_makes_no_copies(reporter):
    draw = np.random.default_rng(0)
    embeddings = draw.standard_normal((50, 64)) + 100 * draw.standard_normal(64)
    assert near_pairs(embeddings, None, 0.98, reporter) == []


def test_between_two_corpora(reporter):
    draw = np.random.default_rng(0)
    test, train = draw.standard_normal((20, 64)), draw.standard_normal((30, 64))
    train[[4, 29]] = test[3]
    found = near_pairs(test, train, 0.98, reporter)
    assert [(pair.first, pair.second) for pair in found] == [(3, 4), (3, 29)]
