"""The number for how well file facts alone tell the classes apart."""

import numpy as np
import pytest
from audit_tables import index_of

from stages.audit.bias import predict_from_metadata

JPEG = {"format": "JPEG", "jpeg_quality": 96}


@pytest.mark.parametrize(
    ("real", "synthetic"),
    [(JPEG, {}), ({}, {"width": 512}), ({}, {"height": 128}), (JPEG, JPEG | {"jpeg_quality": 75})],
)
def test_whatever_tells_the_classes_apart_is_warned_of(real, synthetic):
    found = predict_from_metadata(index_of(*[{"label": 0, **real}] * 20, *[{"label": 1, **synthetic}] * 20))
    assert (found.ap, found.prevalence) == (1.0, 0.5)
    assert found.warnings()


def test_a_mixed_control_and_unequal_classes_are_silent():
    """Facts drawn for both classes from one distribution: chance must not look like a bias."""
    draw = np.random.default_rng(0)
    images = []
    for number in range(160):
        facts = {"format": "JPEG", "jpeg_quality": int(draw.integers(60, 100))} if draw.random() < 0.5 else {}
        images.append({"label": number % 2, "width": int(draw.integers(200, 600)), **facts})
    found = predict_from_metadata(index_of(*images))
    assert found.ap < 0.65
    assert not found.warnings()
    found = predict_from_metadata(index_of(*[{"label": 0}] * 10, *[{"label": 1}] * 90))
    assert found.ap == pytest.approx(0.9, abs=0.02)
    assert not found.warnings()
    found = predict_from_metadata(index_of(*[{"label": 0}] * 4, *[{"label": 1}] * 40))
    assert (found.ap, found.reason, found.warnings()) == (None, "fewer than 5 images of a class", {})


def test_large_classes_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr("stages.audit.bias.MOST_IMAGES", 10)
    # the first reals are like the fakes, most of the later ones are not
    found = predict_from_metadata(index_of(*[{"label": 0}] * 10, *[{"label": 0, **JPEG}] * 40, *[{"label": 1}] * 30))
    assert found.images == 20
    assert found.ap > 0.7
