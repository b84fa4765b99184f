"""A bundle from anybody: whatever is wrong with it ends in one line that names the file, and nothing in it runs."""

import json
import pickle
import struct
import threading

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


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, -1])
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
        (lambda of: without(of, "norm.bias"), r"Missing key\(s\) in state_dict: \"norm.bias\""),
    ],
)
def test_weights_that_are_not_those_of_the_settings(good, refused, change, match):
    weights, card = parts(good)
    refused(packed(change(weights), card), match)


@pytest.mark.parametrize(
    "text", ["[]", '"x"', "{}", '{"a": 1}', "[" * 100_000, '{"__metadata__": 3}', "{\xff", '{"a": NaN}']
)
def test_header_of_another_form(refused, text):
    content = text.encode("latin-1")
    refused(struct.pack("<Q", len(content)) + content + b"\0" * 64, "cannot be read")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 3}, r"version: Input should be 2\); make it again with `ltdpipe bundle`, or update ltdpipe"),
        ({"version": 1}, r"version: Input should be 2\); make it again"),
        ({"kind": "other"}, "kind"),
        ({"surplus": 1}, "surplus"),
        ({"geometry": "wide"}, "geometry"),
        ({"settings": {"type": "ltd", "window": 10**9}}, "window"),
        ({"spec": {}}, "spec"),
        ({"head_sha256": "../../etc/passwd"}, "head_sha256"),
        ({"calibration": {"threshold": 1e400}}, "cannot be read"),
    ],
)
def test_statements_that_cannot_be(good, refused, changes, match):
    refused(with_card(good, **changes), match)


@pytest.mark.parametrize("name", ["view", "backbone", "mean", "taps", "schema"])
@pytest.mark.parametrize("value", [None, -1, {"a": {}}])
def test_feature_settings_of_another_type(good, refused, name, value):
    spec = parts(good)[1]["spec"] | {name: value}
    refused(with_card(good, spec=spec), rf"spec\.{name}|{name}:|view\.")


def test_a_pickle_is_not_opened(refused):
    class Evil:
        def __reduce__(self):
            return (threading.Event, ())

    refused(pickle.dumps(Evil()), "cannot be read")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"weights": "0" * 64}, "weights: 0000"),
        ({"activation": "gelu"}, "activation: gelu here, quickgelu there"),
        ({"extractor": 99}, "extractor: 99"),
    ],
)
def test_another_backbone_is_refused_by_the_setting_that_differs(good, refused, changes, names):
    spec = parts(good)[1]["spec"] | changes
    refused(with_card(good, spec=spec), names)
