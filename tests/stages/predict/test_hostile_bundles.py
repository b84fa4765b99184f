"""A bundle from anybody: whatever is wrong with it ends in one line that names the file, and nothing in it runs."""

import json
import pickle
import struct
import threading
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load, save

from stages.predict.bundle import read_bundle, write_bundle
from stages.predict.detector import Detector
from storage.errors import DataError
from storage.headfile import MAX_HEADER_BYTES


@pytest.fixture
def good(study):
    return study.bundle.read_bytes()


@pytest.fixture
def refused(tmp_path):
    """Write bytes as a bundle and return the one line that reading them ends in."""

    def refuse(content, match):
        path = tmp_path / "evil.ltd"
        path.write_bytes(content)
        with pytest.raises(DataError, match=match) as caught:
            Detector.load(path)
        line = str(caught.value)
        assert str(path) in line
        assert "\n" not in line
        assert len(line) < 1000
        return line

    return refuse


def parts(content):
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    return load(content), json.loads(header["__metadata__"]["ltdpipe"])


def packed(weights, card):
    return save(weights, metadata={"ltdpipe": card if isinstance(card, str) else json.dumps(card)})


def with_card(content, **changes):
    weights, card = parts(content)
    return packed(weights, card | changes)


def test_a_good_one_is_read_and_written_again_with_the_same_bytes(study, tmp_path):
    bundle = read_bundle(study.bundle)
    assert bundle.manifest.name == "ltd"
    assert not bundle.head.training
    write_bundle(tmp_path / "again.ltd", bundle.head, bundle.manifest)
    assert (tmp_path / "again.ltd").read_bytes() == study.bundle.read_bytes()


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncated(good, refused, kept):
    size = int(len(good) * kept) if isinstance(kept, float) else kept
    refused(good[:size], "cannot be read")


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_huge_header(good, refused, length, tmp_path):
    refused(struct.pack("<Q", length) + good[8:], "its header states")
    big = struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" + b" " * (MAX_HEADER_BYTES + 8)
    refused(big, "its header states")


def without(weights, name):
    return {key: tensor for key, tensor in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda of: of | {"classifier.weight": torch.zeros(1, 3)}, r"size mismatch for classifier.weight: .*\[1, 3\]"),
        (lambda of: {name: tensor.half() for name, tensor in of.items()}, "not finite float32 numbers: branches"),
        (lambda of: of | {"surplus": torch.zeros(1)}, r"Unexpected key\(s\) in state_dict: \"surplus\""),
        (lambda of: of | {"x" * 4000: torch.zeros(1)}, "Unexpected key.*xxx"),
        (lambda of: without(of, "norm.bias"), r"Missing key\(s\) in state_dict: \"norm.bias\""),
        (lambda of: of | {"norm.bias": torch.full_like(of["norm.bias"], torch.nan)}, "not finite .* norm.bias"),
    ],
)
def test_weights_that_are_not_those_of_the_settings(good, refused, change, match):
    weights, card = parts(good)
    refused(packed(change(weights), card), match)


def test_shapes_that_overlap(good, refused):
    length = struct.unpack("<Q", good[:8])[0]
    header = json.loads(good[8 : 8 + length])
    header["norm.bias"]["data_offsets"] = header["norm.weight"]["data_offsets"]
    text = json.dumps(header).encode()
    refused(struct.pack("<Q", len(text)) + text + good[8 + length :], "cannot be read")


@pytest.mark.parametrize(
    "text", ["[]", '"x"', "{}", '{"a": 1}', "[" * 100_000, '{"__metadata__": 3}', "{\xff", '{"a": NaN}']
)
def test_header_of_another_form(refused, text):
    content = text.encode("latin-1")
    refused(struct.pack("<Q", len(content)) + content + b"\0" * 64, "cannot be read")


def test_metadata_of_another_form(good, refused):
    weights, card = parts(good)
    infinite = json.dumps(card | {"provenance": {"loss": "huge"}}).replace('"huge"', "1e400")
    for text in ("", "[]", "[" * 100_000, json.dumps(card).replace('"seed": 0', '"seed": NaN'), "{", infinite):
        refused(packed(weights, text), "cannot be read|no bundle")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 3}, r"version: Input should be 2\); make it again with `ltdpipe bundle`, or update ltdpipe"),
        ({"version": 1}, r"version: Input should be 2\); make it again"),
        ({"kind": "other"}, "kind"),
        ({"surplus": 1}, "surplus"),
        ({"geometry": "wide"}, "geometry"),
        ({"settings": {"type": "ltd", "window": 10**9}}, "window"),
        ({"settings": {"type": "rine", "depth": 10**9}}, "depth"),
        ({"settings": {"type": "rine", "project": 10**7}}, "project"),
        ({"settings": {"type": "pickle"}}, "settings"),
        ({"blocks": [0]}, "reads"),
        ({"spec": {}}, "spec"),
        ({"head_sha256": "../../etc/passwd"}, "head_sha256"),
        ({"calibration": {"threshold": 0.0, "real_up_to": 1.0}}, "calibration"),
        ({"calibration": {"threshold": 1e400}}, "cannot be read"),
    ],
)
def test_statements_that_cannot_be(good, refused, changes, match):
    refused(with_card(good, **changes), match)


@pytest.mark.parametrize(("name", "value"), [("backbone", "evil"), ("blocks", 10**9), ("width", 7), ("registers", 4)])
def test_feature_settings_of_no_backbone(good, refused, name, value):
    spec = parts(good)[1]["spec"] | {name: value}
    refused(with_card(good, spec=spec), f"{name}|not known here")


@pytest.mark.parametrize("name", ["view", "backbone", "weights", "mean", "taps", "precision", "extractor", "schema"])
@pytest.mark.parametrize("value", [None, -1, [[1]], {"a": {}}])
def test_feature_settings_of_another_type(good, refused, name, value):
    spec = parts(good)[1]["spec"] | {name: value}
    refused(with_card(good, spec=spec), rf"spec\.{name}|{name}:|view\.")


def test_texts_of_a_bundle_neither_flood_nor_steer_a_terminal(good, refused):
    spec = parts(good)[1]["spec"]
    evil = "x" * 4000 + "\x1b[31m\n"
    refused(with_card(good, spec=spec | {"activation": evil}), r"activation: x+\.\.\.; name")
    line = refused(with_card(good, spec=spec | {"activation": "\x1b[31m\nerror"}), "activation")
    assert line.isprintable()
    assert refused(with_card(good, **{"\x1b[31m\n": 1}), "no bundle").isprintable()
    refused(with_card(good, spec=spec | {"activation": "x" * 20_000}), r"activation: x+\.\.\.; name")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda bands: bands | {"transitions": []}, "transitions must rise"),
        (lambda bands: bands | {"transitions": bands["transitions"][::-1]}, "transitions must rise"),
        (lambda bands: bands | {"transitions": bands["transitions"][:-1]}, "23 means and 23 deviations for 22"),
        (lambda bands: bands | {"transitions": [*bands["transitions"][:-1], 23]}, "bands of transition 23"),
        (lambda bands: _with_l2(bands, mean=[1.0]), "1 means and 23 deviations"),
        (lambda bands: _with_l2(bands, std=[]), "23 means and 0 deviations"),
        (lambda bands: _with_l2(bands, mean=[1e300] * 23), "less than or equal"),
    ],
)
def test_bands_that_cannot_be_drawn(good, refused, change, match):
    bands = parts(good)[1]["bands"]
    assert len(bands["transitions"]) == 23
    refused(with_card(good, bands=change(bands)), match)


def _with_l2(bands, **changes):
    return bands | {"synthetic": bands["synthetic"] | {"l2": bands["synthetic"]["l2"] | changes}}


def test_a_pickle_is_not_opened(refused):
    class Evil:
        def __reduce__(self):
            return (threading.Event, ())

    refused(pickle.dumps(Evil()), "cannot be read")


def test_a_folder_and_nothing(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_bundle(tmp_path / "none.ltd")
    with pytest.raises(
        DataError, match=r"Is a directory.*; name one first that `ltdpipe bundle HEAD -o detector\.ltd` made"
    ):
        read_bundle(tmp_path)


@pytest.mark.parametrize("place", [9, 60, 300, 2000, -2000, -5])
def test_a_flipped_byte_is_refused_or_another_detector(good, study, tmp_path, place):
    identity = read_bundle(study.bundle).identity
    content = bytearray(good)
    content[place] ^= 0x55
    path = tmp_path / "flipped.ltd"
    path.write_bytes(content)
    with suppress(DataError):  # a changed weight is a weight, but another detector
        assert read_bundle(path).identity != identity


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"weights": "0" * 64}, "weights: 0000"),
        ({"activation": "gelu"}, "activation: gelu here, quickgelu there"),
        ({"precision": "fp16"}, "precision"),
        ({"mean": [0.0, 0.0, 0.0]}, "mean"),
        ({"extractor": 99}, "extractor: 99"),
    ],
)
def test_another_backbone_is_refused_by_the_setting_that_differs(good, refused, changes, names):
    if "precision" in changes and torch.cuda.is_available():
        pytest.skip("with a GPU this precision is at hand")
    spec = parts(good)[1]["spec"] | changes
    refused(with_card(good, spec=spec), names)


def test_another_decoder_or_geometry_is_refused(good, refused):
    spec = parts(good)[1]["spec"]
    refused(with_card(good, spec=spec | {"view": spec["view"] | {"decoder": "other-1"}}), "view.decoder: other-1 here")
    refused(with_card(good, geometry="squash256-crop224"), "view.geometry: crop224-pad here, squash256-crop224 there")


def test_other_weights_are_refused_and_the_right_ones_can_be_named(study):
    with pytest.raises(DataError, match=r"weights: .* here, .* there"):
        Detector.load(study.bundle, weights="random:1")
    assert Detector.load(study.bundle, weights="random:0")
