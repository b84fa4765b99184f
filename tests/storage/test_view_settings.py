"""View settings: what they expand to, their folders, and clear words for wrong ones."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.views import expand_views, tile_corners, view_directories


def test_settings_expand_in_their_order_to_safe_folder_names():
    settings = ["clean", "train:3", "val", "jpeg:70", "scale:0.50+jpeg:70.0", "noise:2.5"]
    folders = ("clean", "train-0", "train-1", "train-2", "val", "jpeg-70", "scale-0.5+jpeg-70", "noise-2.5")
    assert view_directories(settings) == folders
    assert len(view_directories(["train:1000"])) == 1000
    assert view_directories(["tencrop"]) == tuple(f"tencrop-{n}" for n in range(10))
    assert view_directories(["tiles:3"]) == ("tiles-3-0", "tiles-3-1", "tiles-3-2")
    assert view_directories(["align", "align-train:2", "align-val"]) == (
        "align", "align-train-0", "align-train-1", "align-val",
    )  # fmt: skip


@given(
    width=st.integers(1, 9000), height=st.integers(1, 9000), side=st.sampled_from([224, 336]), most=st.integers(2, 64)
)
def test_tiles_cover_an_image_evenly_or_as_much_of_it_as_they_may(width, height, side, most):
    corners = tile_corners(width, height, side, most)
    assert len(set(corners)) == len(corners) <= most
    lefts, tops = (sorted(set(each)) for each in zip(*corners, strict=True))
    for places, length in ((lefts, max(width, side)), (tops, max(height, side))):
        gaps = [after - before for before, after in itertools.pairwise(places)]
        assert max(gaps, default=0) - min(gaps, default=0) <= 1
        assert 0 <= places[0] <= places[-1] <= length - side
        assert abs(length - side - places[0] - places[-1]) <= 1
    needed = math.ceil(width / side) * math.ceil(height / side)
    assert len(corners) == needed if needed <= most else len(corners) > most / 2


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cleen", "'cleen' is no view; allowed: clean, train:V"),
        ("train:0", "expected train:V"),
        ("train:1001", "expected train:V"),
        ("jpeg:0", "a quality, a whole number in 1..100, found '0'"),
        ("blur:nan", "sigma in pixels"),
        ("scale:inf", "a factor"),
        ("clean+jpeg:70", "'clean' is no view"),
    ],
)
def test_wrong_settings_are_explained(setting, words):
    with pytest.raises(ValueError, match="view") as error:
        expand_views([setting])
    assert words in str(error.value)


def test_a_view_asked_for_twice_is_refused():
    with pytest.raises(ValueError, match="train-0, train-1 is asked for twice"):
        expand_views(["train:3", "train:2"])
    with pytest.raises(ValueError, match=r"scale-0\.5"):
        expand_views(["scale:0.5", "scale:0.50"])
    with pytest.raises(ValueError, match=r"scale-0\.333333 is asked for twice"):
        expand_views(["scale:0.3333333", "scale:0.3333334"])  # one folder and one key: one picture
