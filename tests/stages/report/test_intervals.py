import numpy as np
import pytest

from stages.evaluate.metrics import measure
from stages.evaluate.uncertainty import BOOTSTRAPPED, draw_counts, mcnemar_p
from stages.report.intervals import resample
from stages.report.results import load_results

SETS = {"one": True, "two": True, "fakes only": False}


def test_a_replicate_is_the_mean_over_seeds_of_the_metrics_of_the_images_drawn(study):
    for seed in (1, 2):
        study.add_scores("ltd", seed, SETS, shift=0.7)
        study.add_scores("ltd", seed, {"x": True}, view="held-out", corpus="training", shift=0.2 * seed)
    results = load_results(study.scores)
    uncertainty = resample(results, replicates=25, seed=3)
    sample = results.samples["demo"]
    (counts,) = draw_counts(sample.strata(), replicates=25, seed=3)
    assert {tested.name for _, tested in uncertainty.replicates} == {"one", "two"}
    for (head, tested), found in uncertainty.replicates.items():
        rows = sample.members[tested.name]
        for replicate, drawn in zip(found, counts, strict=True):
            images = np.repeat(rows, drawn[rows])
            assert len(images) == len(rows)
            by_seed = [
                measure(
                    sample.label[images], sample.logits[head, seed][images], threshold=results.thresholds[head, seed]
                )
                for seed in (1, 2)
            ]
            for metric in ("ap", "roc_auc", "accuracy", "accuracy_real", "calibrated_accuracy", "brier"):
                expected = np.mean([metrics.value(metric) for metrics in by_seed])
                assert replicate[BOOTSTRAPPED.index(metric)] == pytest.approx(expected, abs=1e-12)


def test_what_is_undefined_has_no_interval_though_it_has_replicates(study):
    study.add_scores("ltd", 1, SETS)
    results = load_results(study.scores)
    uncertainty = resample(results, replicates=20)
    one = results.sets[1]
    assert (one.name, results.of_set("ltd", one, "tpr_at_fpr_1").value) == ("one", None)
    assert not np.isnan(uncertainty.replicates["ltd", one][:, BOOTSTRAPPED.index("tpr_at_fpr_1")]).any()
    assert uncertainty.of_set("ltd", one, "tpr_at_fpr_1") is None


def test_decisions_are_compared_of_the_first_seed_that_both_heads_have(study):
    for head, seeds, shift in (("ltd", (1, 2, 3), 2.0), ("linear", (2, 3), 0.1)):
        for seed in seeds:
            study.add_scores(head, seed, SETS, shift=shift)
    results = load_results(study.scores)
    sample = results.samples["demo"]
    for found in resample(results, replicates=20).compare("ltd", "linear"):
        if found.metric == "accuracy":
            rows = sample.members[found.tested.name]
            fake = sample.label[rows] == 1
            right = [(sample.logits[head, 2][rows] > 0) == fake for head in ("ltd", "linear")]
            assert (found.seed, found.p) == (2, mcnemar_p(*right))


def test_strata_tell_label_and_sets_apart(study):
    study.add_scores("ltd", 1, SETS)
    sample = load_results(study.scores).samples["demo"]
    strata = sample.strata()
    groups = {(label, tuple(name for name in sample.members if row in sample.members[name])) for row, label in
              enumerate(sample.label)}  # fmt: skip
    assert len(np.unique(strata)) == len(groups) == 4


def test_the_mean_over_sets_has_the_interval_of_the_mean(study):
    study.add_scores("ltd", 1, SETS, shift=0.7)
    results = load_results(study.scores)
    uncertainty = resample(results, replicates=200)
    mean = np.mean([found[:, 0] for found in uncertainty.replicates.values()], axis=0)
    low, high = uncertainty.of_sets("ltd", "ap")
    assert (low, high) == (pytest.approx(np.quantile(mean, 0.025)), pytest.approx(np.quantile(mean, 0.975)))
    # the accuracy of the set of fakes alone is in the mean but has no replicates
    assert uncertainty.of_sets("ltd", "accuracy") is None
