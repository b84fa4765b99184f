from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from stages.evaluate.scores import read_scores, write_scores
from stages.measure.frame import measure_sets
from stages.measure.metrics import METRICS, calibrated_threshold
from stages.report.results import NamedSet, load_results
from storage.errors import DataError

SETS = {"one": True, "two": True, "fakes only": False}


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


def test_values_are_those_of_the_files(study):
    paths = [study.add_scores("ltd", seed, SETS) for seed in (4, 3)]
    results = load_results(paths)
    assert results.seeds("ltd") == (3, 4)
    tested = NamedSet("demo", "two")
    by_hand = [ap_of(path, "two") for path in reversed(paths)]
    assert results.values("ltd", tested, "ap") == by_hand
    assert results.of_set("ltd", tested, "ap").value == pytest.approx(np.mean(by_hand))
    assert results.of_set("ltd", tested, "ap").std == pytest.approx(np.std(by_hand, ddof=1))
    assert results.size(tested) == (12, 10)


def test_the_order_of_files_and_of_rows_changes_nothing(study):
    def shuffled(n):
        return np.random.default_rng(0).permutation(n)

    one = [study.add_scores("a", 1, SETS), study.add_scores("b", 1, SETS)]
    two = [study.add_scores("b", 1, SETS, order=shuffled), study.add_scores("a", 1, SETS)]
    first, second = load_results(one), load_results(two)
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert (first.heads, first.sets, first.cards) == (second.heads, second.sets, second.cards)


def test_undefined_values_carry_their_reason_and_stay_out_of_the_mean(study):
    study.add_scores("ltd", 1, SETS)
    results = load_results(study.scores)
    one, two, fakes = (NamedSet("demo", name) for name in ("one", "two", "fakes only"))
    reasons = {metric: results.why_undefined("ltd", fakes, metric) for metric in ("ap", "accuracy", "accuracy_fake")}
    assert reasons == {"ap": "no real images", "accuracy": "no real images", "accuracy_fake": ""}
    reason = results.why_undefined("ltd", one, "tpr_at_fpr_1")
    assert reason == "12 real images, fewer than the 500 that this rate needs"
    assert (results.covered("ltd", "ap"), results.covered("ltd", "accuracy_fake")) == ([one, two], [fakes, one, two])
    mean = results.of_corpus("ltd", "ap", "demo")
    assert (mean.count, mean.total, mean.std) == (2, 3, None)
    values = [results.of_set("ltd", tested, "ap").value for tested in (one, two)]
    assert mean.value == pytest.approx(np.mean(values))


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
    assert results.covered("ltd", "ap") == [NamedSet("first", "one")]
    assert {results.of_set("linear", second, metric).count for metric in METRICS} == {0}


def test_degraded_views_are_kept_apart_from_the_clean_one(study):
    clean = study.add_scores("ltd", 1, SETS, view="clean")
    worse = study.add_scores("ltd", 1, SETS, view="blur-2", shift=0.5)
    results = load_results(study.scores)
    assert results.heads == ("ltd",)
    assert results.views == ("blur-2",)
    tested = NamedSet("demo", "one")
    for view, path in (("", clean), ("blur-2", worse)):
        assert results.of_set("ltd", tested, "ap", view).value == ap_of(path, "one")


def test_held_out_scores_give_the_threshold_of_their_own_head_and_seed(study):
    for seed in (1, 2):
        study.add_scores("ltd", seed, SETS, view="clean", shift=0.5)
    held_out = study.add_scores("ltd", 2, {"x": True}, view="held-out", corpus="training", shift=3)
    results = load_results(study.scores)
    scores = read_scores(held_out)
    assert results.thresholds == {("ltd", 2): calibrated_threshold(scores.label, scores.logit)}
    assert [tested.corpus for tested in results.sets] == ["demo"] * 3
    first, second = results.values("ltd", NamedSet("demo", "one"), "calibrated_accuracy")
    assert np.isnan(first)
    test = read_scores(study.scores[1])
    rows = test.members["one"]
    right = (test.logit[rows] > results.thresholds["ltd", 2]) == (test.label[rows] == 1)
    assert second == pytest.approx(right.mean())


def test_heads_and_sets_come_in_the_asked_order(study):
    for head in ("a", "b", "c"):
        study.add_scores(head, 1, SETS)
    results = load_results(study.scores, heads=["c", "not there"], sets=["two", "one"])
    assert results.heads == ("c", "a", "b")
    assert [card.head for card in results.cards] == ["c", "a", "b"]
    assert [tested.name for tested in results.sets] == ["two", "one", "fakes only"]


def test_images_are_counted_once_and_what_no_set_names_is_counted(study):
    study.add_scores("ltd", 1, {"one": False, "two": False}, failed=5)
    study.add_scores("ltd", 2, {"one": False, "two": False}, failed=5)
    (sample,) = load_results(study.scores).samples.values()
    assert (len(sample), sample.n_fake, sample.failed, sample.in_no_set) == (32, 20, 5, 12)


@pytest.mark.parametrize(
    ("other", "label"), [({"reals": 11}, None), ({"sets": {**SETS, "two": False}}, None), ({}, lambda label: 1 - label)]
)
def test_scores_of_other_images_sets_or_labels_are_not_compared(study, other, label):
    study.add_scores("ltd", 1, SETS)
    rewrite(study.add_scores("ltd", 2, **{"sets": SETS, **other}), label=label)
    with pytest.raises(DataError, match="score different images of corpus 'demo'"):
        load_results(study.scores)


def test_a_head_and_seed_given_twice_is_refused(study):
    study.add_scores("ltd", 1, SETS)
    study.add_scores("ltd", 1, SETS)
    with pytest.raises(DataError, match="'ltd', seed 1 are there twice"):
        load_results(study.scores)


def test_held_out_scores_of_one_head_may_lie_beside_each_corpus_and_not_of_two(study):
    study.add_scores("ltd", 1, {"one": True}, view="clean")
    about = {"view": "held-out", "corpus": "training"}
    study.add_scores("ltd", 1, {"x": True}, **about)
    again = study.add_scores("ltd", 1, {"x": True}, **about)
    assert list(load_results(study.scores).thresholds) == [("ltd", 1)]
    rewrite(again, head_sha256="ef" * 32)
    with pytest.raises(DataError, match="'ltd', seed 1 are there twice"):
        load_results(study.scores)


def test_a_study_without_sets_is_refused(study):
    study.add_scores("ltd", 1, {})
    for files in ([], study.scores):
        with pytest.raises(DataError, match="names a test set"):
            load_results(files)


def test_sets_of_one_name_in_two_corpora_keep_the_order_of_their_corpora(study):
    for corpus in ("one", "two"):
        study.add_scores("ltd", 1, {"biggan": True, "adm": True}, corpus=corpus)
    order = ["two/biggan", "two/adm", "one/biggan", "one/adm"]
    results = load_results(study.scores, sets=order)
    assert [tested.key for tested in results.sets] == order


def test_a_set_that_was_asked_for_and_is_not_there_is_counted_in_every_mean(study):
    study.add_scores("ltd", 1, {"one": True, "two": True})
    results = load_results(study.scores, sets=["demo/two", "demo/three", "elsewhere/four", "five"])
    assert [tested.key for tested in results.missing] == ["demo/three"]
    mean = results.of_corpus("ltd", "ap", "demo")
    assert (mean.count, mean.total) == (2, 3)
    assert mean.value == load_results(study.scores).of_corpus("ltd", "ap", "demo").value
    assert results.coverage("demo") == "2 of 3 sets"
