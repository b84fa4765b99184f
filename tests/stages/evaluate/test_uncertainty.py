import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom, norm

from stages.evaluate.metrics import measure
from stages.evaluate.uncertainty import BOOTSTRAPPED, Resampler, bootstrap_p, draw_counts, holm, interval, mcnemar_p


def _scores(n, seed, *, decimals=None):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat([0, 1], [n - n // 3, n // 3]))
    logits = random.normal(size=n) + labels
    return labels, logits if decimals is None else np.round(logits, decimals)


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("n", [30, 400])
def test_a_replicate_has_the_metrics_of_the_images_drawn(n, decimals):
    labels, logits = _scores(n, n, decimals=decimals)
    resampler = Resampler(labels, logits, threshold=0.3)
    (counts,) = draw_counts(labels, replicates=15)
    found = resampler.metrics(counts)
    for row, drawn in zip(found, counts, strict=True):
        images = np.repeat(np.arange(n), drawn)
        expected = measure(labels[images], logits[images], threshold=0.3)
        for value, metric in zip(row, BOOTSTRAPPED, strict=True):
            if metric not in expected.undefined:
                assert value == pytest.approx(expected.value(metric), abs=1e-12), metric


def test_strata_keep_their_size_and_images_are_drawn_alike():
    strata = np.array([0] * 5 + [1] * 3 + [2])
    counts = np.concatenate(list(draw_counts(strata, replicates=4000)))
    assert (counts[:, :5].sum(axis=1) == 5).all()
    assert (counts[:, 5:8].sum(axis=1) == 3).all()
    assert (counts[:, 8] == 1).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(9), abs=0.06)
    assert counts[:, 0].var() == pytest.approx(4 / 5, abs=0.08)


def test_the_same_seed_draws_the_same_images():
    strata = np.repeat([0, 1], 50)
    one, two, other = (np.concatenate(list(draw_counts(strata, replicates=20, seed=s))) for s in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


def test_many_images_are_drawn_in_batches_that_make_the_same_number_of_replicates(monkeypatch):
    monkeypatch.setattr("stages.evaluate.uncertainty._CELLS_AT_ONCE", 40)
    batches = list(draw_counts(np.repeat([0, 1], 5), replicates=10))
    assert [batch.shape for batch in batches] == [(4, 10), (4, 10), (2, 10)]
    assert (np.concatenate(batches).sum(axis=1) == 10).all()
    assert (batches[0] != batches[1]).any()


def test_an_interval_leaves_out_as_much_on_either_side():
    replicates = np.random.default_rng(0).permutation(1001) / 1000
    assert interval(replicates) == (pytest.approx(0.025), pytest.approx(0.975))
    assert interval(replicates, level=0.5) == (pytest.approx(0.25), pytest.approx(0.75))


def test_without_a_threshold_there_is_no_calibrated_accuracy_to_resample():
    labels, logits = _scores(30, 0)
    (counts,) = draw_counts(labels, replicates=3)
    undefined = np.isnan(Resampler(labels, logits).metrics(counts))
    assert undefined[:, BOOTSTRAPPED.index("calibrated_accuracy")].all()
    assert undefined.sum() == 3


def test_one_class_cannot_be_resampled():
    with pytest.raises(ValueError, match="both classes"):
        Resampler(np.ones(3, dtype=int), np.zeros(3))


def _precision(threshold):
    return norm.sf(threshold - 0.75) / (norm.sf(threshold - 0.75) + norm.sf(threshold + 0.75))


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Two normal classes 1.5 apart, whose true AUC, AP and accuracies are known."""
    truth = {
        "roc_auc": norm.cdf(1.5 / np.sqrt(2)),
        "accuracy_real": norm.cdf(0.75),
        "balanced_accuracy": norm.cdf(0.75),
    }
    truth["ap"] = quad(lambda t: norm.pdf(t - 0.75) * _precision(t), -9, 9)[0]
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 150)
    studies = 1000
    covered = dict.fromkeys(truth, 0)
    for study in range(studies):
        logits = random.normal(size=300) + 1.5 * labels - 0.75
        resampler = Resampler(labels, logits)
        replicates = np.concatenate([resampler.metrics(c) for c in draw_counts(labels, replicates=400, seed=study)])
        for metric, value in truth.items():
            low, high = interval(replicates[:, BOOTSTRAPPED.index(metric)])
            covered[metric] += low <= value <= high
    assert all(0.93 <= count / studies <= 0.97 for count in covered.values()), covered


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
