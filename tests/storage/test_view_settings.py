"""View settings: what they expand to, their folders, and clear words for wrong ones."""

from __future__ import annotations

import pytest

from storage.views import expand_views, view_directories


def test_settings_expand_in_their_order_to_safe_folder_names():
    settings = ["clean", "train:3", "val", "jpeg:70", "scale:0.50+jpeg:70.0", "noise:2.5"]
    folders = ("clean", "train-0", "train-1", "train-2", "val", "jpeg-70", "scale-0.5+jpeg-70", "noise-2.5")
    assert view_directories(settings) == folders
    assert len(view_directories(["train:1000"])) == 1000
    assert view_directories(["tencrop"]) == tuple(f"tencrop-{n}" for n in range(10))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cleen", "'cleen' is no view; allowed: clean, train:V"),
        ("train", "expected train:V"),
        ("train:0", "expected train:V"),
        ("train:1001", "expected train:V"),
        ("jpeg:101", "a quality"),
        ("jpeg:0", "a quality, a whole number in 1..100, found '0'"),
        ("jpeg:70.5", "a quality"),
        ("jpeg", "found 'nothing'"),
        ("blur:nan", "sigma in pixels"),
        ("scale:inf", "a factor"),
        ("scale:0.5+", "'' is no view"),
        ("clean+jpeg:70", "'clean' is no view"),
        ("../x:1", "no view"),
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
