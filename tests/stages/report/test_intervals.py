import zlib

import numpy as np
import pytest

from stages.measure.bootstrap import draw_counts, interval
from stages.measure.metrics import measure
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
    (counts,) = draw_counts(sample.strata(), replicates=25, seed=(3, zlib.crc32(b"demo")))
    assert {tested.name for _, tested in uncertainty.replicates} == {"one", "two"}
    for (head, tested), found in uncertainty.replicates.items():
        rows = sample.members[tested.name]
        for at, drawn in enumerate(counts):
            images = np.repeat(rows, drawn[rows])
            assert len(images) == len(rows)
            by_seed = [
                measure(
                    sample.label[images], sample.logits[head, seed][images], threshold=results.thresholds[head, seed]
                )
                for seed in (1, 2)
            ]
            for metric in ("ap", "roc_auc", "accuracy", "accuracy_real", "calibrated_accuracy", "brier"):
                expected = np.mean([metrics[metric] for metrics in by_seed])
                assert found[metric][at] == pytest.approx(expected, abs=1e-12)


def test_what_is_undefined_has_no_interval_though_it_has_replicates(study):
    study.add_scores("ltd", 1, SETS)
    results = load_results(study.scores)
    uncertainty = resample(results, replicates=20)
    one = results.sets[1]
    assert (one.name, results.of_set("ltd", one, "tpr_at_fpr_1").value) == ("one", None)
    assert not np.isnan(uncertainty.replicates["ltd", one]["tpr_at_fpr_1"]).any()
    assert uncertainty.of_set("ltd", one, "tpr_at_fpr_1") is None


def test_one_family_is_all_that_is_compared(study):
    for head, seeds, shift in (("ltd", (1, 2), 1.0), ("linear", (2, 3), 0.6), ("other", (1,), 0.4)):
        for seed in seeds:
            study.add_scores(head, seed, SETS, shift=shift)
    uncertainty = resample(load_results(study.scores), replicates=50)
    found = uncertainty.compare([("ltd", "linear"), ("ltd", "other")])
    assert len(found) == 2 * 2 * 3  # pairs, sets with both classes, metrics
    least = min(found, key=lambda each: each.found.p)
    assert least.p_holm == pytest.approx(min(1, 12 * least.found.p))
    assert {(each.other, each.of) for each in found} == {("linear", "methods"), ("other", "weights")}
    for each in found:
        values = [np.mean(uncertainty.results.values(h, each.tested, each.metric)) for h in (each.head, each.other)]
        assert each.found.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))


def test_corpora_have_draws_of_their_own(study):
    for corpus in ("one", "two"):
        study.add_scores("ltd", 1, {"a": True}, corpus=corpus, shift=0.7)
    results = load_results(study.scores)
    both = resample(results, replicates=2000).replicates
    first, second = (found["ap"] for found in both.values())
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    study.add_scores("ltd", 1, {"a": True}, corpus="another", shift=0.7)
    more = resample(load_results(study.scores), replicates=2000).replicates
    assert all(np.array_equal(found["ap"], more[place]["ap"]) for place, found in both.items())


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
    mean = np.mean([found["ap"] for found in uncertainty.replicates.values()], axis=0)
    sets = results.sets_of("demo")
    value = results.of_sets("ltd", "ap", sets).value
    assert uncertainty.of_sets("ltd", "ap", sets) == interval("ap", value, mean, [(12, 10)] * 2)
    assert uncertainty.of_method("ltd", "ap", sets) is None  # one seed
    study.add_scores("ltd", 2, SETS, shift=0.9)
    low, high = resample(load_results(study.scores), replicates=200).of_method("ltd", "ap", sets)
    assert low < value < high
