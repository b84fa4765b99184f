"""Sizes against published ones, missing classes, small and unreadable images."""

import pytest
from audit_tables import index_of

from stages.audit.run import size_warnings, sizes


def findings(index, layout="folder"):
    return {
        (kind, entry["name"]): text
        for entry in sizes(index, layout, 224)
        for kind, text in size_warnings(entry, layout, 224).items()
    }


@pytest.mark.parametrize(
    ("layout", "name", "real", "synthetic", "differs"),
    [
        ("forensynths", "sitd", 180, 180, False),
        ("forensynths", "sitd", 180, 179, True),
        ("forensynths", "sitd", 181, 179, True),  # an equal sum is not enough
        ("forensynths", "whichfaceisreal", 900, 1100, False),  # but where only the sum is published
        ("forensynths", "whichfaceisreal", 899, 1100, True),
    ],
)
def test_sizes_are_compared_with_the_published_ones(layout, name, real, synthetic, differs):
    index = index_of(*[{"label": label, "sets": [name]} for label in [0] * real + [1] * synthetic])
    warned = findings(index, layout)
    assert set(warned) == ({("counts", name)} if differs else set())
    assert all(
        text.startswith(f"{real} real and {synthetic} synthetic images; published: ") for text in warned.values()
    )


def test_sets_of_one_class():
    index = index_of(*[{"label": label, "sets": [name]} for name, label in (("a", 1), ("b", 0), ("b", 1), ("c", 0))])
    found = findings(index)
    assert set(found) == {("one-class", "a"), ("one-class", "c")}
    assert "no real image" in found["one-class", "a"]
    assert "no synthetic image" in found["one-class", "c"]


def test_images_below_the_crop():
    edge, below = {"label": 0, "width": 224, "height": 224}, {"label": 0, "height": 223}
    index = index_of(edge, below, {"label": 1, "width": 128, "height": 128})
    assert "1 of 2 real and 1 of 1 synthetic" in findings(index)["below-crop", "s"]
    assert sizes(index, "folder", 224)[0]["below_crop"] == {"real": 1, "synthetic": 1}
