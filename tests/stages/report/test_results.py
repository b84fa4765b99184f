"""What scores files say together: values, means, intervals and tests, and which files do not belong together."""

import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from stages.evaluate.scores import read_scores, write_scores
from stages.measure.bootstrap import draw_counts, interval
from stages.measure.frame import measure_sets
from stages.measure.metrics import METRICS, calibrated_threshold, measure
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


def ap_of(path, name):
    frame = measure_sets(read_scores(path))
    return frame.loc[(frame["set"] == name) & (frame["metric"] == "ap"), "value"].item()


def test_values_are_those_of_the_files_seed_by_seed(study):
    paths = [study.add_scores("ltd", seed, SETS) for seed in (4, 3)]
    results = load_results(paths)
    by_hand = [ap_of(path, "two") for path in reversed(paths)]
    measured = results.by_seed("ltd", TWO, "ap")
    assert (measured.seeds, measured.values) == ([3, 4], by_hand)
    mean = results.of_set("ltd", TWO, "ap")
    assert (mean.value, mean.std) == pytest.approx((np.mean(by_hand), np.std(by_hand, ddof=1)))
    assert results.size(TWO) == (12, 10)


def test_the_order_of_files_and_of_rows_changes_nothing(study):
    one = [study.add_scores("a", 1, SETS), study.add_scores("b", 1, SETS)]
    shuffled = np.random.default_rng(0).permutation
    two = [study.add_scores("b", 1, SETS, order=shuffled), study.add_scores("a", 1, SETS)]
    first, second = load_results(one), load_results(two)
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert (first.heads, first.sets, first.cards) == (second.heads, second.sets, second.cards)


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


def test_a_corpus_that_a_seed_or_a_head_has_not_scored_is_named(study):
    study.add_scores("ltd", 1, {"one": True}, corpus="first")
    study.add_scores("ltd", 1, {"one": True}, corpus="second", view="another view")
    study.add_scores("ltd", 2, {"one": True}, corpus="first")
    study.add_scores("linear", 1, {"one": True}, corpus="first")
    results = load_results(study.scores)
    second = NamedSet("second", "one")
    assert results.why_undefined("ltd", second, "ap") == "not scored (seed 2)"
    assert results.why_undefined("linear", second, "ap") == "not scored"
    assert results.views == ()  # the only view of a corpus stands for its undegraded images
    assert [results.of_corpus("ltd", "ap", corpus).count for corpus in ("first", "second")] == [1, 0]
    assert {results.of_set("linear", second, metric).count for metric in METRICS} == {0}


def test_degraded_views_are_kept_apart_from_the_clean_one(study):
    clean = study.add_scores("ltd", 1, SETS, view="clean")
    worse = study.add_scores("ltd", 1, SETS, view="blur-2", shift=0.5)
    results = load_results(study.scores)
    assert (results.heads, results.views) == (("ltd",), ("blur-2",))
    for view, path in (("", clean), ("blur-2", worse)):
        assert results.of_set("ltd", ONE, "ap", view).value == ap_of(path, "one")


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


def test_heads_and_sets_come_in_the_asked_order_and_absent_sets_are_counted(study):
    for head in ("a", "b", "c"):
        study.add_scores(head, 1, SETS)
    asked = ["demo/three", "demo/two", "one", "elsewhere/four", "five"]
    results = load_results(study.scores, heads=["c", "not there"], sets=asked)
    assert results.heads == ("c", "a", "b")
    assert [card.head for card in results.cards] == ["c", "a", "b"]
    assert results.sets == (TWO, ONE, FAKES)
    assert [tested.key for tested in results.missing] == ["demo/three"]
    mean, plain = (r.of_corpus("a", "accuracy_fake", "demo") for r in (results, load_results(study.scores)))
    assert (mean.value, mean.count, mean.total) == (plain.value, 3, 4)
    assert results.coverage("demo") == "3 of 4 sets"


def test_sets_of_one_name_in_two_corpora_keep_the_order_of_their_corpora(study):
    for corpus in ("one", "two"):
        study.add_scores("ltd", 1, {"biggan": True, "adm": True}, corpus=corpus)
    order = ["two/biggan", "two/adm", "one/biggan", "one/adm"]
    assert [tested.key for tested in load_results(study.scores, sets=order).sets] == order


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


def test_a_study_without_sets_is_refused(study):
    study.add_scores("ltd", 1, {})
    for files in ([], study.scores):
        with pytest.raises(DataError, match="names a test set"):
            load_results(files)


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
