"""The named lists: as published, consistent with the layouts, and protocols."""

import miniatures
import pytest
from miniatures import scanned
from pydantic import ValidationError

from pipeline.params import Corpus
from stages.scan.protocols import known_sets, protocol_settings, published_sizes, set_list, set_lists
from storage.errors import SettingError

SIZES = {
    "forensynths13": 13,
    "ufd16": 16,
    "ufd19": 19,
    "ufd20": 20,
    "genimage8": 8,
    "genimage7": 7,
    "drct13": 13,
    "drct16": 16,
    "aigcdetect16": 16,
    "aigibench25": 25,
}


def test_sizes_of_the_lists_and_how_they_differ():
    assert {name: len(set(found.members)) for name, found in set_lists().items()} == SIZES
    assert all(len(found.members) == SIZES[name] for name, found in set_lists().items())  # no set twice
    sets = {name: set(found.members) for name, found in set_lists().items()}
    assert sets["ufd20"] - sets["ufd19"] == {"stylegan2"}
    assert sets["ufd20"] - sets["ufd16"] == {"sitd", "san", "crn", "imle"}
    assert sets["genimage8"] - sets["genimage7"] == {"sdv1.4"}
    assert sets["drct16"] - sets["drct13"] == set(set_list("drct16").inpainting)
    assert known_sets("drct-2m") == sets["drct16"]
    assert known_sets("aigcdetect") - sets["aigcdetect16"] == {"sd_xl"}


@pytest.mark.parametrize("name", SIZES)
def test_every_member_is_a_set_that_its_layout_makes_and_its_size_is_published(tmp_path, name):
    found = set_list(name)
    folder = {"sdv1.4": "stable_diffusion_v_1_4", "sdv1.5": "stable_diffusion_v_1_5"}
    miniatures.write(tmp_path, *(f"{folder.get(member, member)}/1_fake/1.png" for member in found.members))
    assert set(scanned(tmp_path, found.layout)[1].sets) == set(found.members)
    assert name in {"aigcdetect16", "aigibench25"} or set(found.members) <= set(published_sizes(found.layout))


def test_a_protocol_sets_list_and_geometry_where_the_corpus_does_not():
    assert protocol_settings("ltd", "drct-2m") == {"sets": "drct13", "geometry": "squash256-crop224"}
    corpus = Corpus.model_validate({"root": "x", "layout": "drct-2m", "protocol": "ltd"})
    assert (corpus.geometry, corpus.sets) == ("squash256-crop224", "drct13")
    assert corpus.set_order == set_list("drct13").members
    own = {"root": "x", "layout": "drct-2m", "protocol": "ltd", "geometry": "crop224-pad", "sets": ["sd-turbo"]}
    corpus = Corpus.model_validate(own)
    assert (corpus.geometry, corpus.set_order) == ("crop224-pad", ("sd-turbo",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layout": "folder", "protocol": "ltd"}, "says nothing about layout 'folder', only about ufd, genimage"),
        ({"layout": "ufd", "sets": "ufd17"}, "list of test sets 'ufd17' is not known; choose from forensynths13"),
        ({"layout": "genimage", "sets": "ufd16"}, "names sets of layout 'ufd', found 'genimage'"),
    ],
)
def test_wrong_settings_say_what_is_allowed(values, message):
    with pytest.raises(ValidationError, match=message):
        Corpus.model_validate({"root": "x", **values})
    with pytest.raises(SettingError, match="'ufd18' is not known"):
        set_list("ufd18")
