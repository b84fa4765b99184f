"""Train, bundle, calibrate, predict: the bundle says what evaluation says."""

import numpy as np
import pytest
from scipy.stats import binom

from ltdpipe import Detector
from stages.evaluate.scores import read_scores, sigmoid
from stages.measure.metrics import measure
from stages.predict.calibrate import run as calibrate
from stages.predict.looks import Looks
from stages.predict.run import run


def predictions(detector, *paths, looks=None, **options):
    return list(
        run(detector=detector, paths=[str(path) for path in paths], stdin=None, looks=looks or Looks(), **options)
    )


def below(prediction, root):
    return prediction.path.removeprefix(f"{root}/")


def test_predict_gives_the_scores_of_evaluation(study, detector):
    scores = read_scores(study.scores("test"))
    expected = dict(zip(scores.path, sigmoid(scores.logit), strict=True))
    found = predictions(detector, study.images("test"))
    assert [below(one, study.images("test")) for one in found] == sorted(expected)
    for one in found:
        assert one.status == "ok"
        score = sigmoid(np.array([one.logit]))[0]
        assert score == pytest.approx(expected[below(one, study.images("test"))], abs=1e-5)
        assert one.probability == pytest.approx(score, abs=1e-12)  # not calibrated: the sigmoid


def test_the_head_learned_something(study):
    scores = read_scores(study.scores("test"))
    assert measure(scores.label, scores.logit)["roc_auc"] > 0.75


def test_calibrated_false_positive_rate_is_within_its_binomial_interval(study, tmp_path):
    out = tmp_path / "calibrated.ltd"
    calibration = calibrate(bundle=study.bundle, on=study.scores("held"), out=out, target_fpr=0.1, unsure=0.2)
    detector = Detector.load(out)
    reals = predictions(detector, study.images("test") / "real")
    alarms = sum(one.verdict == "synthetic" for one in reals)
    assert binom.ppf(0.001, len(reals), 0.1) <= alarms <= binom.ppf(0.999, len(reals), 0.1)
    assert detector.calibration == calibration
    scores = read_scores(study.scores("test"))
    logits = {below(one, study.images("test")): one.logit for one in reals}
    real = scores.label == 0
    assert [logits[path] for path in scores.path[real]] == pytest.approx(list(scores.logit[real]), abs=1e-3)


def test_a_calibration_from_features_is_that_from_scores(study, tmp_path):
    by_scores = calibrate(bundle=study.bundle, on=study.scores("held"), out=tmp_path / "a.ltd", target_fpr=0.1)
    by_features = calibrate(bundle=study.bundle, on=study.features("held"), out=tmp_path / "b.ltd", target_fpr=0.1)
    assert by_features.threshold == pytest.approx(by_scores.threshold, abs=1e-4)
    assert (by_features.n_real, by_features.n_fake) == (30, 30)


def test_two_lines_of_python(study):
    results = Detector.load(study.bundle).score([study.images("test") / "real" / "00000.png"])
    assert results[0].verdict in {"real", "synthetic"}
