import math
import statistics

import numpy as np
import pyarrow as pa
import pytest

from stages.evaluate.scores import ScoreCard, read_scores, write_scores
from stages.measure.frame import COLUMNS, Mean, mean_of, mean_over_sets, measure_sets
from stages.measure.metrics import METRICS

NAN = math.nan


@pytest.fixture
def scores(tmp_path):
    """Set "one" has images of both classes; "two" has the real one, called wrongly, and another real one."""
    card = ScoreCard(
        head="ltd", seed=3, corpus="demo", view="clean", feature_key="ab" * 16, head_sha256="cd" * 32, failed=0
    )
    sets = [["one"], ["one", "two"], [], ["two"]]
    images = pa.table({"path": list("abcd"), "sets": sets, "generator": ["x", None, "x", None], "label": [1, 0, 1, 0]})
    write_scores(tmp_path / "scores", card=card, images=images, logits=np.array([2.0, 1.0, -5.0, -1.0]))
    return read_scores(tmp_path / "scores")


def test_every_metric_of_every_set_has_a_row_that_says_of_what(scores):
    frame = measure_sets(scores)
    assert tuple(frame.columns) == COLUMNS
    assert list(zip(frame["set"], frame["metric"], strict=True)) == [(s, m) for s in ("one", "two") for m in METRICS]
    assert set(frame[["head", "seed", "corpus", "view"]].itertuples(index=False, name=None)) == {
        ("ltd", 3, "demo", "clean")
    }
    assert set(frame[["set", "n_real", "n_fake"]].itertuples(index=False, name=None)) == {("one", 1, 1), ("two", 2, 0)}


def test_a_set_is_measured_over_its_own_images_and_an_undefined_value_says_why(scores):
    cells = measure_sets(scores).set_index(["set", "metric"])
    assert cells.loc[("one", "ap"), ["value", "why"]].tolist() == [1.0, ""]
    assert cells.loc[("one", "accuracy"), "value"] == 0.5
    assert cells.loc[("two", "accuracy_real"), "value"] == 0.5
    assert math.isnan(cells.loc[("two", "ap"), "value"])
    assert cells.loc[("two", "ap"), "why"] == "no synthetic images"
    strict = measure_sets(scores, threshold=1.5).set_index(["set", "metric"])["value"]
    assert strict["one", "calibrated_accuracy"] == 1.0


def test_a_mean_covers_only_defined_values_and_says_so():
    assert mean_of([0.5, NAN, 1.0]) == Mean(0.75, pytest.approx(math.sqrt(0.125)), 2, 3)
    assert mean_of([0.5, NAN]) == Mean(0.5, None, 1, 2)
    assert mean_of([NAN]) == Mean(None, None, 0, 1)
    assert mean_of([]) == Mean(None, None, 0, 0)
    assert mean_of([0.9, 0.8, 0.4]).std == pytest.approx(statistics.stdev([0.9, 0.8, 0.4]))


def test_the_mean_over_sets_averages_the_same_sets_for_every_seed():
    assert mean_over_sets([[0.8, 0.8], [0.6, 0.6], [NAN, NAN]]) == Mean(pytest.approx(0.7), 0.0, 2, 3)
    lacking = mean_over_sets([[0.8, 0.9], [0.6, NAN], []])
    assert lacking == Mean(pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4), 1, 3)
    assert mean_over_sets([[NAN], [0.6]]) == Mean(0.6, None, 1, 2)
    assert mean_over_sets([[NAN]]) == Mean(None, None, 0, 1)
