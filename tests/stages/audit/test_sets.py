"""Sizes against published ones, missing classes, small and unreadable images."""

from audit_tables import index_of

from stages.audit.sets import distributions, size_warnings, sizes, unreadable


def findings(index, layout="folder"):
    return {
        (kind, entry["name"]): text
        for entry in sizes(index, layout, 224)
        for kind, text in size_warnings(entry, layout, 224).items()
    }


def test_sizes_that_differ_from_the_published_ones():
    index = index_of(*[{"label": label, "sets": ["sitd"]} for label in [0] * 180 + [1] * 179])
    found = findings(index, "forensynths")
    assert found == {("counts", "sitd"): "180 real and 179 synthetic images; published: 180 real and 180 synthetic"}


def test_an_equal_sum_of_both_classes_is_not_enough():
    index = index_of(*[{"label": label, "sets": ["sitd"]} for label in [0] * 181 + [1] * 179])
    assert ("counts", "sitd") in findings(index, "forensynths")


def test_sizes_that_agree_are_silent():
    assert findings(index_of(*[{"label": label, "sets": ["sitd"]} for label in [0] * 180 + [1] * 180]), "ufd") == {}


def test_where_only_the_sum_is_published_the_sum_is_compared():
    index = index_of(*[{"label": label, "sets": ["whichfaceisreal"]} for label in [0] * 900 + [1] * 1100])
    assert findings(index, "forensynths") == {}
    assert ("counts", "whichfaceisreal") in findings(index.slice(1), "forensynths")


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


def test_unreadable_images_by_reason():
    broken = {"status": "failed", "width": None, "height": None, "format": None, "row": None}
    index = index_of(
        {"label": 0}, {"label": 1, **broken, "error": "truncated: a"}, {"label": 1, **broken, "error": "truncated: b"}
    )
    found = unreadable(index)
    assert (found["images"], found["reasons"]) == (2, {"truncated": 2})
    assert found["examples"][0] == {"path": "0001.png", "error": "truncated: a"}
    assert sizes(index, "folder", 224)[0]["unreadable"] == 2


def test_distributions_of_each_class():
    jpeg = {"format": "JPEG", "jpeg_quality": 96}
    found = distributions(index_of({"label": 0, **jpeg}, {"label": 0, **jpeg, "width": 300}, {"label": 1}))
    assert found["real"]["formats"] == {"JPEG": 2}
    assert found["real"]["jpeg_quality"] == {"95-99": 2}
    assert found["real"]["most_common_sizes"] == [["256x256", 1], ["300x256", 1]]
    assert found["real"]["width"] == [256.0, 267.0, 278.0, 289.0, 300.0]
    assert found["synthetic"]["formats"] == {"PNG": 1}
    assert distributions(index_of({"label": 1}))["real"]["width"] == []
