"""Equal bytes and near copies."""

import numpy as np
import pytest
from audit_tables import index_of

from stages.audit.duplicates import SimilarPairs, exact_copies, near_pairs


def all_pairs(*arguments):
    blocks = [zip(*block, strict=True) for block in near_pairs(*arguments)]
    return sorted((int(first), int(second), float(cosine)) for block in blocks for first, second, cosine in block)


def test_equal_bytes():
    index = index_of(*[{"label": 0, "sha256": sha256, "split": "train"} for sha256 in "abaca"])
    numbers, warnings = exact_copies(index, None)
    assert numbers["examples"] == [["0000.png", "0002.png", "0004.png"]]
    assert warnings == {"duplicates": "2 files are byte for byte copies of another file"}
    trained = [{"label": 1, "sha256": sha256, "split": "train"} for sha256 in "cxa"]
    index = index_of(*[{"label": 0, "sha256": sha256} for sha256 in "abc"], *trained)
    numbers, warnings = exact_copies(index, None)
    assert numbers["train_test_examples"] == [
        {"test": "0000.png", "train": "0005.png"},
        {"test": "0002.png", "train": "0003.png"},
    ]
    assert numbers["with_both_labels"] == [["0000.png", "0005.png"], ["0002.png", "0003.png"]]
    assert set(warnings) == {"duplicates", "label-noise", "train-test-duplicates"}


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_no_pair_is_lost_and_each_is_found_once(reporter, monkeypatch, block, threshold):
    monkeypatch.setattr("stages.audit.duplicates._BLOCK", block)
    monkeypatch.setattr("stages.audit.duplicates._PART", 5)
    draw = np.random.default_rng(0)
    images = draw.standard_normal((8, 64))[draw.integers(8, size=70)] + 0.25 * draw.standard_normal((70, 64)) + 3
    for others in (None, images[40:]):
        mine = images if others is None else images[:40]
        centred, theirs = (rows - mine.mean(axis=0) for rows in (mine, mine if others is None else others))
        cosine = (centred @ theirs.T) / np.outer(np.linalg.norm(centred, axis=1), np.linalg.norm(theirs, axis=1))
        expected = [(i, j) for i, j in np.argwhere(cosine >= threshold).tolist() if others is not None or i < j]
        found = all_pairs(mine, others, threshold, reporter)
        assert [pair[:2] for pair in found] == expected
        assert [pair[2] for pair in found] == pytest.approx([cosine[pair] for pair in expected], abs=1e-5)
    assert reporter.done == 70 + 40
    assert expected


def test_equal_embeddings_are_found_at_a_threshold_of_one(reporter):
    """Float32 gives some of them a cosine just below 1."""
    twins = np.repeat(np.random.default_rng(0).standard_normal((40, 64)).astype(np.float16), 2, axis=0)
    assert [pair[:2] for pair in all_pairs(twins, None, 1.0, reporter)] == [(row, row + 1) for row in range(0, 80, 2)]


def test_all_pairs_are_counted_and_the_most_similar_are_kept():
    """Images that all look the same make N² pairs, which no memory holds."""
    pairs = SimilarPairs()
    random = np.random.default_rng(0)
    made = []
    for start in (0, 1000):
        block = np.arange(start, start + 500), random.permutation(500), random.integers(0, 99, 500) / np.float32(99)
        made += zip(*(column.tolist() for column in block), strict=True)
        pairs.add(*block)
    assert pairs.count == 1000
    assert (len(pairs.first), len(pairs.second)) == (1000, 500)
    assert pairs.most_similar == sorted(made, key=lambda pair: (-pair[2], pair[0], pair[1]))[:50]
