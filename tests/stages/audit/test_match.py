"""Format-matched subsets have the same facts in both classes and draw nothing."""

from collections import Counter

import numpy as np
import pytest
from audit_tables import index_of
from hypothesis import given
from hypothesis import strategies as st

from stages.audit.bias import predict_from_metadata
from stages.audit.match import matched_sets

IMAGES = st.lists(
    st.fixed_dictionaries(
        {
            "label": st.sampled_from([0, 1]),
            "format": st.sampled_from(["PNG", "JPEG"]),
            "width": st.sampled_from([256, 512]),
            "height": st.sampled_from([256, 300]),
        }
    ),
    min_size=1,
    max_size=30,
)


@given(images=IMAGES, match=st.sampled_from(["jpeg", "size", "jpeg+size"]))
def test_both_classes_get_the_same_facts_and_nothing_more_could_be_kept(images, match):
    index = index_of(*images)
    rows = matched_sets(index, match)["s"]
    assert list(rows) == sorted(set(rows))

    def cells(chosen, label):
        names = {"jpeg": ("format",), "size": ("width", "height"), "jpeg+size": ("format", "width", "height")}[match]
        return Counter(tuple(image[name] for name in names) for image in chosen if image["label"] == label)

    kept = [images[row] for row in rows]
    assert cells(kept, 0) == cells(kept, 1) == cells(images, 0) & cells(images, 1)


@pytest.mark.parametrize(
    ("match", "images", "rows"),
    [
        ("jpeg", [(0, "JPEG", 95, 256), (1, "JPEG", 99, 256)], [0, 1]),  # in steps of five
        ("jpeg", [(0, "JPEG", 95, 256), (1, "JPEG", 94, 256)], []),
        ("size", [(0, "PNG", None, 500), (1, "PNG", None, 512), (0, "PNG", None, 1024), (1, "PNG", None, 128)], [0, 1]),
        ("jpeg", [(None, "PNG", None, 256), (1, "PNG", None, 256), (0, "PNG", None, 9)], [1, 2]),
    ],
)
def test_what_is_alike_is_matched(match, images, rows):
    columns = ("label", "format", "jpeg_quality", "width")
    assert (
        list(matched_sets(index_of(*(dict(zip(columns, image, strict=True)) for image in images)), match)["s"]) == rows
    )


def test_shared_reals_are_matched_for_each_set_by_itself():
    shared = [{"label": 0, "sets": ["a", "b"], "format": kind} for kind in ("PNG", "JPEG")]
    index = index_of(*shared, {"label": 1, "sets": ["a"]}, {"label": 1, "sets": ["b"], "format": "JPEG"})
    found = matched_sets(index, "jpeg")
    assert {name: list(rows) for name, rows in found.items()} == {"a": [0, 2], "b": [1, 3]}


def test_a_biased_set_is_unbiased_after_matching():
    draw = np.random.default_rng(0)
    images = [
        {"label": label, **({"format": "JPEG", "jpeg_quality": 90} if draw.random() < (0.2 if label else 0.9) else {})}
        for label in [0, 1] * 100
    ]
    index = index_of(*images)
    assert predict_from_metadata(index).warnings()
    assert not predict_from_metadata(index.take(matched_sets(index, "jpeg")["s"])).warnings()
