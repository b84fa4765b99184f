"""The number for how well file facts alone tell the classes apart."""

import numpy as np
import pytest
from audit_tables import index_of

from stages.audit.predictor import predict_from_facts

JPEG = {"format": "JPEG", "jpeg_quality": 96}


def test_jpeg_reals_and_png_fakes_are_loud():
    found = predict_from_facts(index_of(*[{"label": 0, **JPEG}] * 20, *[{"label": 1}] * 20))
    assert found.ap == 1.0
    assert found.prevalence == 0.5
    assert found.is_loud


@pytest.mark.parametrize("fact", [{"width": 512}, {"height": 128}, {"format": "WEBP"}])
def test_each_fact_alone_is_seen(fact):
    assert predict_from_facts(index_of(*[{"label": 0}] * 20, *[{"label": 1, **fact}] * 20)).ap == 1.0


def test_jpeg_quality_is_seen():
    found = predict_from_facts(index_of(*[{"label": 0, **JPEG}] * 20, *[{"label": 1, **JPEG, "jpeg_quality": 75}] * 20))
    assert found.ap == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_a_mixed_control_is_silent(seed):
    """Facts drawn for both classes from one distribution: chance must not look like a bias."""
    draw = np.random.default_rng(seed)
    images = []
    for number in range(160):
        facts = {"format": "JPEG", "jpeg_quality": int(draw.integers(60, 100))} if draw.random() < 0.5 else {}
        images.append({"label": number % 2, "width": int(draw.integers(200, 600)), **facts})
    found = predict_from_facts(index_of(*images))
    assert found.ap < 0.65
    assert not found.is_loud


def test_many_more_fakes_than_reals_are_not_a_bias():
    found = predict_from_facts(index_of(*[{"label": 0}] * 10, *[{"label": 1}] * 90))
    assert found.ap == pytest.approx(0.9, abs=0.02)
    assert not found.is_loud


def test_too_few_images_have_a_reason_instead_of_a_number():
    found = predict_from_facts(index_of(*[{"label": 0}] * 4, *[{"label": 1}] * 40))
    assert (found.ap, found.reason) == (None, "fewer than 5 images of a class")
    assert not found.is_loud


def test_large_classes_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr("stages.audit.predictor.MOST_IMAGES", 10)
    # the first reals are like the fakes, most of the later ones are not
    found = predict_from_facts(index_of(*[{"label": 0}] * 10, *[{"label": 0, **JPEG}] * 40, *[{"label": 1}] * 30))
    assert found.images == 20
    assert found.ap > 0.7
