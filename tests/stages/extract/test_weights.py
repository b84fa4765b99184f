"""Weights files: every known form gives the same tower, strangers are refused, downloads go on and are checked."""

import dataclasses
import hashlib
import http.server
import json
import os
import pickle
import re
import tempfile
import threading
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from running import invoke
from stages.extract import weights
from stages.extract.backbone import load_backbone
from stages.extract.registry import BACKBONES
from stages.extract.towers import build_tower
from stages.extract.weights import fetch_weights, present_weights
from storage.atomic import sha256_of
from storage.errors import DataError, ResourceError


@pytest.fixture
def state(tiny):
    return build_tower(tiny, 7).module.state_dict()


def load(path, name="tiny"):
    return load_backbone(name, weights=str(path), precision="fp32")


def drawn_hash():
    """The hash of the weights of ``state``, which were drawn with the seed 7."""
    return load_backbone("tiny", weights="random:7", precision="fp32").weights.removeprefix("random:7:")


def visual(state, prefix="visual."):
    return {f"{prefix}{name}": value for name, value in state.items()}


def test_every_form_of_file_gives_the_same_weights(tiny, state, tmp_path):
    model = open_clip.create_model("tiny")
    model.visual.load_state_dict(state)
    whole = model.state_dict()
    authors = {"model": {f"model.{name}": value for name, value in whole.items()} | {"selector.logits": torch.zeros(5)}}
    forms = {
        "alone.pt": state,
        "open_clip.pt": whole,
        "training.pt": {"state_dict": {f"module.{name}": value for name, value in whole.items()}, "epoch": 3},
        "authors.pth": authors | {"optimizer": {"state": {}}, "total_steps": 10},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(whole, tmp_path / "whole.safetensors")
    expected = drawn_hash()
    assert {path.name: load(path).weights == expected for path in tmp_path.iterdir()} == dict.fromkeys(
        [*forms, "old.pt", "whole.safetensors"], True
    )


# Of a transformer block and its neighbours: open_clip's name -> Hugging Face's and timm's.
BLOCKS = {
    "transformer.resblocks.": ("encoder.layers.", "blocks."), "ln_pre.": ("pre_layrnorm.", "norm_pre."),
    "ln_post.": ("post_layernorm.", "norm."), ".ln_1.": (".layer_norm1.", ".norm1."),
    ".ln_2.": (".layer_norm2.", ".norm2."), ".attn.in_proj_": (".self_attn.qkv.", ".attn.qkv."),
    ".attn.out_proj.": (".self_attn.out_proj.", ".attn.proj."), ".mlp.c_fc.": (".mlp.fc1.", ".mlp.fc1."),
    ".mlp.c_proj.": (".mlp.fc2.", ".mlp.fc2."), "conv1.": ("embeddings.patch_embedding.", "patch_embed.proj."),
}  # fmt: skip


def renamed(name, library):
    for ours, theirs in BLOCKS.items():
        name = name.replace(ours, theirs[library])
    return name


def hugging_face(state):
    """The keys and shapes of transformers' CLIPModel, with some of its text tower."""
    theirs = {"visual_projection.weight": state["proj"].T.contiguous(), "logit_scale": torch.ones(()),
              "text_model.final_layer_norm.weight": torch.ones(3), "text_projection.weight": torch.ones(3, 3),
              "vision_model.embeddings.position_ids": torch.arange(5)[None],
              "vision_model.embeddings.class_embedding": state["class_embedding"],
              "vision_model.embeddings.position_embedding.weight": state["positional_embedding"]}  # fmt: skip
    for name, value in state.items():
        other = f"vision_model.{renamed(name, 0)}"
        if ".qkv." in other:
            for each, part in zip("qkv", value.chunk(3), strict=True):
                theirs[other.replace(".qkv.", f".{each}_proj.")] = part.clone()
        elif name not in {"proj", "class_embedding", "positional_embedding"}:
            theirs[other] = value
    return theirs


def timm_s(state):
    """The keys and shapes of timm's CLIP towers, such as vit_large_patch14_clip_224.openai."""
    single = {"proj", "class_embedding", "positional_embedding"}
    theirs = {renamed(name, 1): value for name, value in state.items() if name not in single}
    theirs |= {"head.weight": state["proj"].T.contiguous(), "cls_token": state["class_embedding"][None, None]}
    return theirs | {"pos_embed": state["positional_embedding"][None]}


def test_hugging_face_s_and_timm_s_files_and_folders_give_the_same_weights(tiny, state, tmp_path):
    theirs = hugging_face(state)
    for name, activation in (("snapshot", "quick_gelu"), ("sharded", "quick_gelu"), ("gelu", "gelu"), ("bin", None)):
        (tmp_path / name).mkdir()
        vision = {} if activation is None else {"hidden_act": activation}
        config = {"model_type": "clip", "vision_config": vision, "text_config": {"hidden_act": "gelu"}}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    save_file(theirs, tmp_path / "snapshot" / "model.safetensors")
    save_file(theirs, tmp_path / "gelu" / "model.safetensors")
    torch.save(theirs, tmp_path / "bin" / "pytorch_model.bin")
    for part in range(2):
        file = tmp_path / "sharded" / f"model-0000{part + 1}-of-00002.safetensors"
        save_file({name: theirs[name] for name in sorted(theirs)[part::2]}, file)
    save_file(timm_s(state), tmp_path / "timm.safetensors")
    expected = drawn_hash()
    for name in ("snapshot", "snapshot/model.safetensors", "sharded", "bin", "bin/pytorch_model.bin"):
        assert load(tmp_path / name).weights == expected, name
    assert load(tmp_path / "timm.safetensors").weights == expected
    with pytest.raises(DataError, match="belongs to the activation gelu, but the backbone tiny has quickgelu"):
        load(tmp_path / "gelu")
    load(tmp_path / "gelu", "tiny-gelu")


def test_a_model_that_does_not_fit_is_named_by_its_keys(tiny, tmp_path):
    for key, form in (
        ("vision_model.head.probe", "a Hugging Face SigLIP model"),
        ("layer1.0.conv1.weight", "a ResNet"),
    ):
        save_file({key: torch.zeros(1)}, tmp_path / "w.safetensors")
        with pytest.raises(DataError, match=f"does not fit the backbone tiny; by its keys it is {form}: .* missing"):
            load(tmp_path / "w.safetensors")


def test_own_archive_of_a_known_hash_is_opened_and_an_unknown_one_is_not(tiny, state, tmp_path, monkeypatch):
    tower = open_clip.create_model("tiny").visual.eval()  # archives hold a library's own forward pass
    tower.load_state_dict(state)
    path = tmp_path / "archive.pt"
    with warnings.catch_warnings():  # torch calls its old archives deprecated; OpenAI's weights are one
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(tower, torch.zeros(1, 3, 32, 32), check_trace=False), path)
    with pytest.raises(DataError, match="TorchScript archive with an unknown sha256"):
        load(path)
    monkeypatch.setitem(BACKBONES, "tiny", dataclasses.replace(tiny, sha256=sha256_of(path)))
    assert load(path).weights == drawn_hash()


def test_known_file_under_another_backbone_is_refused(tiny, state, tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    monkeypatch.setitem(BACKBONES, "tiny", dataclasses.replace(tiny, sha256=sha256_of(path)))
    with pytest.raises(DataError, match=r"holds the weights of tiny \(quickgelu\).*backbone is tiny-gelu \(gelu\)"):
        load(path, "tiny-gelu")
    load(path)


def test_activation_that_a_file_tells_must_be_the_backbones(tiny, state, tmp_path):
    save_file(state, tmp_path / "told.safetensors", metadata={"activation": "gelu"})
    torch.save({"model": visual(state, "model.visual.")}, tmp_path / "authors.pth")
    load(tmp_path / "told.safetensors", "tiny-gelu")
    with pytest.raises(DataError, match="belongs to the activation gelu, but the backbone tiny has quickgelu"):
        load(tmp_path / "told.safetensors")
    with pytest.raises(DataError, match="belongs to the activation quickgelu"):
        load(tmp_path / "authors.pth", "tiny-gelu")


MARK = Path(tempfile.gettempdir(), f"executed-{os.getpid()}")


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


def test_nothing_in_a_file_is_executed(tiny, tmp_path):
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Evil(), 2))
    torch.save(Evil(), tmp_path / "zip.pt")
    for name in ("pickle.pt", "zip.pt"):
        with pytest.raises(DataError, match="without running code"):
            load(tmp_path / name)
    assert not MARK.exists()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda state: state.pop("ln_post.bias"), r"1 missing \(ln_post.bias\), 0 not known"),
        (lambda state: state.update({"extra": torch.zeros(1)}), r"0 missing, 1 not known \(extra\)"),
        (lambda state: state.update({"proj": torch.zeros(2, 2)}), "size mismatch for proj"),
    ],
)
def test_file_that_does_not_fit_is_refused_in_one_line(tiny, state, tmp_path, edit, words):
    state = dict(state)
    edit(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(DataError, match=words) as error:
        load(tmp_path / "w.pt")
    assert "\n" not in str(error.value)


def test_missing_damaged_and_strange_files_are_explained(tiny, state, tmp_path):
    save_file(state, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-100])
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "lfs.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    (tmp_path / "page.safetensors").write_bytes(b"\n<!DOCTYPE html><html>")
    (tmp_path / "index.safetensors").write_bytes(b'{"weight_map": {}}')
    for name, words in {
        "cut.safetensors": "no weights file",
        "list.pt": "holds a list",
        "empty.pt": "no weights file",
        "lfs.safetensors": "is no weights file but a Git LFS pointer; run `git lfs pull`",
        "page.safetensors": "is no weights file but a web page: the download ended at one",
        "index.safetensors": "is no weights file but JSON; name the file of weights beside it",
    }.items():
        with pytest.raises(DataError, match=words):
            load(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(DataError, match="is a folder without weights"):
        load(tmp_path)


CONTENT = bytes(range(256)) * 4000
REPOSITORY, FILE = "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"


class Hub(http.server.BaseHTTPRequestHandler):
    """A mirror of the hub that has one file; the first transfer breaks off half-way."""

    asked: list[str | None]

    def do_HEAD(self):
        if self.path != f"/{REPOSITORY}/resolve/main/{FILE}":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self):
        self.asked.append(self.headers.get("Range"))
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : len(CONTENT) // 2 if len(self.asked) == 1 else len(CONTENT)])

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of the test's own, in place of the one that huggingface_hub asks; it can be taken offline."""
    Hub.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("LTDPIPE_WEIGHTS", str(tmp_path / "weights"))
        yield lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        server.shutdown()


def test_weights_come_from_the_hub_or_its_mirror_once_and_are_checked(hub, tmp_path):
    path = Path(invoke("fetch", "clip-vit-b-32").stdout.splitlines()[-1])  # the rest is asked for after half of it
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path / "weights")
    assert invoke("fetch", "clip-vit-b-32").stdout.splitlines()[-1] == str(path)
    assert len(Hub.asked) == 2
    for go_offline in (lambda: None, hub):
        go_offline()
        error = invoke("fetch", "clip-vit-b-16").exception
        assert isinstance(error, ResourceError)
        assert re.search(r"cannot be downloaded .*`ltdpipe fetch clip-vit-b-16`", str(error))
    path.resolve().write_bytes(CONTENT[:-1] + b"x")
    error = str(invoke("fetch", "clip-vit-b-32").exception)
    assert "is not the weights file of clip-vit-b-32 (its sha256 differs); delete" in error


def test_openais_own_file_is_found_where_it_was_put_and_must_be_that_file(tmp_path, reporter, monkeypatch):
    monkeypatch.delenv("LTDPIPE_WEIGHTS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    card = dataclasses.replace(BACKBONES["clip-vit-b-32"], sha256=hashlib.sha256(CONTENT).hexdigest())
    assert present_weights(card) is None
    for folder in (".cache/clip", ".cache/ltdpipe/weights"):
        path = tmp_path / folder / "ViT-B-32.pt"
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        assert fetch_weights(card, reporter.note) == (path, card.sha256)
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ResourceError, match=r"ViT-B-32.pt is not the weights file of clip-vit-b-32"):
        fetch_weights(card, reporter.note)


def test_the_hash_of_weights_holds_names_shapes_types_and_values_and_no_order():
    def hashed(**tensors):
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights.weights_hash(module)

    a, b = torch.zeros(2, 3), torch.ones(2)
    assert hashed(a=a, b=b) == hashed(b=b, a=a)
    others = [{"a": a.T.contiguous()}, {"a": a.int()}, {"a": a + 1}, {"c": a}, {"a": b, "b": a}]
    assert len({hashed(**{"a": a, "b": b, **other}) for other in ({}, *others)}) == 1 + len(others)
