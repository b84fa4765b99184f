"""What scores files say together: values, means, intervals and tests, and which files do not belong together."""

import zlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from stages.evaluate.scores import read_scores, write_scores
from stages.measure.bootstrap import draw_counts, interval
from stages.measure.metrics import calibrated_threshold, measure
from stages.report.load import load_results, strata
from stages.report.results import NamedSet
from stages.report.tables import comparison_table
from storage.errors import DataError

SETS = {"one": True, "two": True, "fakes only": False}
ONE, TWO, FAKES = (NamedSet("demo", name) for name in SETS)


def rewrite(path, *, label=None, **about):
    """Change the labels of a scores file, or what it says it is about."""
    scores = read_scores(path)
    sets = [[name for name, rows in scores.members.items() if row in rows] for row in range(len(scores))]
    label = scores.label if label is None else label(scores.label)
    images = pa.table({"path": scores.path, "sets": sets, "generator": scores.generator, "label": label})
    write_scores(path, card=replace(scores.card, **about), images=images, logits=scores.logit)


def test_undefined_values_carry_their_reason_and_stay_out_of_the_mean(study):
    study.add_scores("ltd", 1, SETS)
    results = load_results(study.scores)
    reasons = {metric: results.why_undefined("ltd", FAKES, metric) for metric in ("ap", "accuracy", "accuracy_fake")}
    assert reasons == {"ap": "no real images", "accuracy": "no real images", "accuracy_fake": ""}
    reason = results.why_undefined("ltd", ONE, "tpr_at_fpr_1")
    assert reason == "12 real images, fewer than the 500 that this rate needs"
    assert results.covered("ltd", "ap", results.sets) == [ONE, TWO]
    assert results.covered("ltd", "accuracy_fake", results.sets) == [FAKES, ONE, TWO]
    mean = results.of_corpus("ltd", "ap", "demo")
    values = [results.of_set("ltd", tested, "ap").value for tested in (ONE, TWO)]
    assert (mean.value, mean.count, mean.total, mean.std) == (pytest.approx(np.mean(values)), 2, 3, None)


def test_held_out_scores_give_the_threshold_of_their_own_head_and_seed(study):
    for seed in (1, 2):
        study.add_scores("ltd", seed, SETS, view="clean", shift=0.5)
    held_out = read_scores(study.add_scores("ltd", 2, {"x": True}, view="held-out", corpus="training", shift=3))
    results = load_results(study.scores)
    threshold = calibrated_threshold(held_out.label, held_out.logit)
    assert results.thresholds == {("ltd", 2): threshold}
    assert [tested.corpus for tested in results.sets] == ["demo"] * 3
    first, second = results.by_seed("ltd", ONE, "calibrated_accuracy").values
    test = read_scores(study.scores[1])
    rows = test.members["one"]
    assert np.isnan(first)
    assert second == pytest.approx(((test.logit[rows] > threshold) == (test.label[rows] == 1)).mean())


@pytest.mark.parametrize(
    ("other", "label"), [({"reals": 11}, None), ({"sets": {**SETS, "two": False}}, None), ({}, lambda label: 1 - label)]
)
def test_scores_of_other_images_sets_or_labels_are_not_compared(study, other, label):
    study.add_scores("ltd", 1, SETS)
    rewrite(study.add_scores("ltd", 2, **{"sets": SETS, **other}), label=label)
    with pytest.raises(DataError, match="score different images of corpus 'demo'"):
        load_results(study.scores)


def test_a_head_and_seed_given_twice_is_refused_but_for_held_out_scores_of_one_head(study):
    study.add_scores("ltd", 1, {"one": True}, view="clean")
    about = {"view": "held-out", "corpus": "training"}
    study.add_scores("ltd", 1, {"x": True}, **about)
    again = study.add_scores("ltd", 1, {"x": True}, **about)
    assert list(load_results(study.scores).thresholds) == [("ltd", 1)]
    twice = study.add_scores("ltd", 1, {"one": True}, view="clean")
    with pytest.raises(DataError, match="'ltd', seed 1 are there twice"):
        load_results(study.scores)
    rewrite(again, head_sha256="ef" * 32)
    with pytest.raises(DataError, match="'ltd', seed 1 are there twice"):
        load_results([path for path in study.scores if path != twice])


def test_a_replicate_is_the_mean_over_seeds_of_the_metrics_of_the_images_drawn(study):
    for seed in (1, 2):
        study.add_scores("ltd", seed, SETS, shift=0.7)
        study.add_scores("ltd", seed, {"x": True}, view="held-out", corpus="training", shift=0.2 * seed)
    results = load_results(study.scores, replicates=25, seed=3)
    images, logits = results.images["demo"], results.logits["demo"]
    groups = {
        (label, *(row in rows for rows in images.members.values())) for row, label in enumerate(images.label)
    }  # fmt: skip
    assert len(np.unique(strata(images))) == len(groups) == 4
    (counts,) = draw_counts(strata(images), replicates=25, seed=(3, zlib.crc32(b"demo")))
    assert {tested for _, tested in results.replicates} == {ONE, TWO}
    for (head, tested), replicates in results.replicates.items():
        rows = images.members[tested.name]
        for at, drawn in enumerate(counts):
            again = np.repeat(rows, drawn[rows])
            assert len(again) == len(rows)
            by_seed = [
                measure(images.label[again], logits[head, s][again], threshold=results.thresholds[head, s])
                for s in (1, 2)
            ]
            for metric in ("ap", "roc_auc", "accuracy", "accuracy_real", "calibrated_accuracy", "brier"):
                expected = np.mean([metrics[metric] for metrics in by_seed])
                assert replicates[metric][at] == pytest.approx(expected, abs=1e-12)
    # undefined, so without an interval, though it has replicates
    assert not np.isnan(results.replicates["ltd", ONE]["tpr_at_fpr_1"]).any()
    assert results.interval("ltd", "tpr_at_fpr_1", [ONE]) is None


def test_one_family_is_all_that_is_compared(study):
    for head, seeds, shift in (("ltd", (1, 2), 1.0), ("linear", (2, 3), 0.6), ("other", (1,), 0.4)):
        for seed in seeds:
            study.add_scores(head, seed, SETS, shift=shift)
    table = comparison_table(load_results(study.scores, replicates=50), [("ltd", "linear"), ("ltd", "other")])
    found = [dict(zip(table.header, row, strict=True)) for row in table.blocks[0].rows]
    assert len(found) == 2 * 2 * 3  # pairs, sets with both classes, metrics
    least = min(found, key=lambda row: row["p"])
    assert least["p_holm"] == pytest.approx(min(1, 12 * least["p"]))
    assert {(row["other"], row["of"]) for row in found} == {("linear", "methods"), ("other", "weights")}
    for row in found:
        assert row["difference"].value == pytest.approx(row["first"].value - row["second"].value)


def test_corpora_have_draws_of_their_own(study):
    for corpus in ("one", "two"):
        study.add_scores("ltd", 1, {"a": True}, corpus=corpus, shift=0.7)
    both = load_results(study.scores, replicates=2000).replicates
    first, second = (found["ap"] for found in both.values())
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    study.add_scores("ltd", 1, {"a": True}, corpus="another", shift=0.7)
    more = load_results(study.scores, replicates=2000).replicates
    assert all(np.array_equal(found["ap"], more[place]["ap"]) for place, found in both.items())


def test_the_mean_over_sets_has_the_interval_of_the_mean_which_is_narrower_than_that_of_a_set(study):
    study.add_scores("ltd", 1, SETS, shift=0.7)
    results = load_results(study.scores, replicates=200)
    mean = np.mean([found["ap"] for found in results.replicates.values()], axis=0)
    value = results.of_corpus("ltd", "ap", "demo").value
    low, high = results.interval("ltd", "ap", results.sets)
    assert (low, high) == interval("ap", value, mean, [(12, 10)] * 2)
    widths = [np.ptp(results.interval("ltd", "ap", [tested])) for tested in (ONE, TWO)]
    assert low < value < high < low + max(widths)
    assert results.interval("ltd", "ece", [ONE]) is None
    assert results.interval_of_method("ltd", "ap", results.sets) is None  # one seed
    study.add_scores("ltd", 2, SETS, shift=0.9)
    low, high = load_results(study.scores, replicates=200).interval_of_method("ltd", "ap", results.sets)
    assert low < value < high
