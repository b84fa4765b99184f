"""Curves of one test set, thinned to what can be drawn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stages.report.results import load_results
from stages.report.set_figures import curve_figures

SETS = {"one": True, "fakes only": False}


def points(line):
    return np.array([list(map(float, point.split(","))) for point in line.points.split()])


@pytest.fixture
def drawn(study):
    study.add_scores("ltd", 1, SETS, shift=0.5, reals=300)
    study.add_scores("ltd", 2, SETS, shift=0.5, reals=300)
    results = load_results(study.scores)
    return results, curve_figures(results)


def test_only_sets_of_both_classes_have_curves(drawn):
    assert list(drawn[1]) == ["one"]
    assert [chart.title for chart in drawn[1]["one"]] == [
        "one: ROC", "one: precision and recall", "one: reliability", "one: logits of ltd",
    ]  # fmt: skip


def test_the_thinned_roc_goes_from_corner_to_corner_and_encloses_the_area(drawn):
    results, figures = drawn
    chance, line = figures["one"][0].marks
    corners = points(chance)
    curve = points(line)
    assert curve[0].tolist() == corners[0].tolist()
    assert curve[-1].tolist() == corners[1].tolist()
    assert len(curve) < 100
    sample = results.samples["demo"]
    rows = sample.members["one"]
    width, height = np.abs(corners[1] - corners[0])
    area = np.trapezoid(corners[0, 1] - curve[:, 1], curve[:, 0]) / width / height
    assert area == pytest.approx(roc_auc_score(sample.label[rows], sample.logits["ltd", 1][rows]), abs=0.02)


def test_the_words_beside_curves_hold_where_few_images_leave_large_steps(study):
    """A perfect head has no point but the corners."""
    study.add_scores("ltd", 1, {"one": True}, shift=20)
    study.add_scores("bad", 1, {"one": True}, shift=-20)
    roc, precision, *_ = curve_figures(load_results(study.scores))["one"]
    assert roc.words == "bad: finds 0 % at 10 % false alarms. ltd: finds 100 % at 10 % false alarms."
    assert precision.words == "bad: precision 45 % at recall 90 %. ltd: precision 100 % at recall 90 %."


def test_histograms_are_shares_of_each_class_over_all_seeds(drawn):
    chart = drawn[1]["one"][3]
    real, fake, threshold = chart.marks
    assert [line.kind for line in chart.marks] == ["real", "fake", "threshold"]
    scale = [(tick.at, float(tick.text) / 100) for tick in chart.y_ticks]
    (low, _), (high, value) = scale[0], scale[-1]
    for line in (real, fake):
        heights = (low - points(line)[1:-1:2, 1]) / (low - high) * value
        assert heights.sum() == pytest.approx(1.0, abs=0.02)
    assert len(set(points(threshold)[:, 0])) == 1
