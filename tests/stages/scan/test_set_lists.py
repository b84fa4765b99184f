"""The named lists: as published, consistent with the layouts, and as documented."""

import pytest
from pydantic import ValidationError

from stages.scan.classes import ClassNames
from stages.scan.folder import Folder, read_paths
from stages.scan.layouts import LAYOUTS
from stages.scan.protocols import known_sets, protocol_settings, published_sizes, set_list, set_lists
from stages.scan.settings import ScanSettings
from storage.errors import SettingError


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("ufd16", 16), ("ufd19", 19), ("ufd20", 20), ("forensynths13", 13), ("genimage8", 8), ("genimage7", 7)),
        *(("drct13", 13), ("drct16", 16), ("aigcdetect16", 16)),
    ],
)
def test_sizes_and_no_set_twice(name, size):
    assert len(set(set_list(name).members)) == len(set_list(name).members) == size
    assert set(set_lists()) == {
        *("ufd16", "ufd19", "ufd20", "forensynths13", "genimage8", "genimage7", "drct13", "drct16", "aigcdetect16")
    }


def test_how_the_lists_differ():
    sets = {name: set(found.members) for name, found in set_lists().items()}
    assert sets["ufd20"] - sets["ufd19"] == {"stylegan2"}
    assert sets["ufd20"] - sets["ufd16"] == {"sitd", "san", "crn", "imle"}
    assert sets["genimage8"] - sets["genimage7"] == {"sdv1.4"}
    assert sets["drct16"] - sets["drct13"] == set(set_list("drct16").inpainting)
    assert known_sets("drct-2m") == sets["drct16"]
    assert known_sets("aigcdetect") - sets["aigcdetect16"] == {"sd_xl"}


@pytest.mark.parametrize("name", list(set_lists()))
def test_every_member_is_a_set_that_its_layout_makes(name):
    found = set_list(name)
    for member in found.members:
        spelled = {"sdv1.4": "stable_diffusion_v_1_4", "sdv1.5": "stable_diffusion_v_1_5"}.get(member, member)
        folder = Folder(f"val/{spelled}/1_fake")
        read_paths([folder], ClassNames(), "mini", "root")
        labels = LAYOUTS[found.layout].labels(folder)
        assert labels is not None, member
        assert labels.sets == (member,)


@pytest.mark.parametrize(
    "name", ["ufd16", "ufd19", "ufd20", "forensynths13", "genimage8", "genimage7", "drct13", "drct16"]
)
def test_published_sizes_are_known_for_every_member(name):
    assert set(set_list(name).members) <= set(published_sizes(set_list(name).layout))


def test_published_sizes():
    sizes = published_sizes("ufd")
    assert (sizes["progan"].images, sizes["progan"].real) == (8000, None)
    assert (sizes["deepfake"].real, sizes["deepfake"].synthetic, sizes["deepfake"].images) == (2707, 2698, 5405)
    assert published_sizes("genimage")["sdv1.5"].images == 16000
    assert published_sizes("folder") == {}


def test_covered_names_list_and_size():
    assert set_list("ufd16").covered(["progan", "dalle", "other"]) == "ufd16, 2 of 16 sets"


def test_a_protocol_sets_list_and_geometry():
    assert protocol_settings("ltd", "drct-2m") == {"sets": "drct13", "geometry": "squash256-crop224"}
    settings = ScanSettings.model_validate({"root": "x", "layout": "ufd", "protocol": "ltd"})
    assert settings.sets == "ufd16"
    assert settings.set_order == set_list("ufd16").members
    kept = ScanSettings.model_validate({"root": "x", "layout": "ufd", "protocol": "ltd", "sets": ["dalle"]})
    assert kept.selection.sets == ("dalle",)


def test_a_corpus_of_params_gets_the_geometry_of_its_protocol():
    from pipeline.params import Corpus

    corpus = Corpus.model_validate({"root": "x", "layout": "drct-2m", "protocol": "ltd"})
    assert (corpus.geometry, corpus.sets) == ("squash256-crop224", "drct13")
    assert Corpus.model_validate({"root": "x", "layout": "drct-2m", "protocol": "drct"}).geometry == "crop224-pad"
    with_own = {"root": "x", "layout": "drct-2m", "protocol": "ltd", "geometry": "crop224-pad"}
    assert Corpus.model_validate(with_own).geometry == "crop224-pad"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layout": "folder", "protocol": "ltd"}, "says nothing about layout 'folder', only about ufd, genimage"),
        (
            {"layout": "ufd", "protocol": "mine"},
            "protocol 'mine' is not known; choose from ltd, univfd, rine, fatformer, drct",
        ),
        ({"layout": "ufd", "sets": "ufd17"}, "list of test sets 'ufd17' is not known; choose from forensynths13"),
        ({"layout": "genimage", "sets": "ufd16"}, "names sets of layout 'ufd', found 'genimage'"),
    ],
)
def test_wrong_settings_say_what_is_allowed(values, message):
    with pytest.raises(ValidationError, match=message):
        ScanSettings.model_validate({"root": "x", **values})


def test_an_unknown_list_is_a_setting_error():
    with pytest.raises(SettingError, match="'ufd18' is not known"):
        set_list("ufd18")
