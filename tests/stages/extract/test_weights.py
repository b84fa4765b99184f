"""Weights files: every known form gives the same tower, strangers are refused, downloads go on and are checked."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import http.server
import os
import pickle
import tempfile
import threading
import time
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from stages.extract import weights
from stages.extract.backbone import load_backbone
from stages.extract.registry import BACKBONES
from stages.extract.towers import build_tower
from stages.extract.weights import download, fetch_weights, present_weights
from storage.atomic import sha256_of
from storage.errors import DataError, ResourceError


@pytest.fixture
def state(tiny) -> dict[str, torch.Tensor]:
    return build_tower(tiny, 7).module.state_dict()


def load(path, name: str = "tiny"):
    return load_backbone(name, weights=str(path), precision="fp32")


def visual(state, prefix: str = "visual."):
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
    expected = load_backbone("tiny", weights="random:7", precision="fp32").weights
    assert {path.name: load(path).weights == expected for path in tmp_path.iterdir()} == dict.fromkeys(
        [*forms, "old.pt", "whole.safetensors"], True
    )


def test_openai_key_names_fit_the_full_architecture(tmp_path):
    """A checkpoint with the key set of OpenAI's ViT-B/32, in half precision as they publish it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = open_clip.create_model("ViT-B-32-quickgelu")
    openai = {name: value.half() for name, value in model.state_dict().items()}
    openai |= {
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    assert {"visual.conv1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight", "visual.proj"} < set(openai)
    torch.save(openai, tmp_path / "ViT-B-32.pt")
    backbone = load(tmp_path / "ViT-B-32.pt", "clip-vit-b-32")
    assert torch.equal(backbone.tower.module.conv1.weight, model.visual.conv1.weight.half().float())


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
    assert load(path).weights == load_backbone("tiny", weights="random:7", precision="fp32").weights


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
        (lambda state: state.update({"epoch": 3}), r"0 missing, 1 not known \(epoch\)"),
        (lambda state: state.update({"proj": 3}), "proj"),
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
    for name, words in {
        "cut.safetensors": "no weights file",
        "list.pt": "holds a list",
        "empty.pt": "no weights file",
    }.items():
        with pytest.raises(DataError, match=words):
            load(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "nowhere.pt")
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)


CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; the first answer breaks off half-way."""

    asked: list[str | None]

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range"))
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
        start = 0 if self.path == "/always-whole" else start
        if self.path == "/busy" and len(self.asked) == 1:
            self.send_error(503)
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) // 2 if len(self.asked) == 1 else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def address():
    Server.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_broken_transfer_goes_on_where_it_stopped(address, tmp_path, reporter):
    download(f"{address}/w.pt", tmp_path / "w.pt", reporter.note)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert Server.asked == [None, f"bytes={len(CONTENT) // 2}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]
    assert any("broke off" in note for note in reporter.notes)


@pytest.mark.parametrize("have", [0, 1000])
def test_transfer_goes_on_with_a_server_that_is_busy_for_a_while(address, tmp_path, reporter, have):
    if have:
        (tmp_path / "w.pt.partial").write_bytes(CONTENT[:have])
    download(f"{address}/busy", tmp_path / "w.pt", reporter.note)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert Server.asked == [f"bytes={have}-" if have else None] * 2


def test_a_file_has_its_name_only_when_its_content_is_on_the_disk(address, tmp_path, reporter, monkeypatch):
    synced, sync = [], weights.fsync

    def recording(path):
        synced.append((path.name, path.read_bytes(), (tmp_path / "w.pt").exists()))
        sync(path)

    monkeypatch.setattr(weights, "fsync", recording)
    download(f"{address}/w.pt", tmp_path / "w.pt", reporter.note)
    assert synced == [("w.pt.partial", CONTENT, False)]


def test_rest_of_an_earlier_run_is_used_and_one_that_is_too_long_is_not(address, tmp_path, reporter):
    Server.asked = ["counted"]  # no break this time
    (tmp_path / "a.partial").write_bytes(CONTENT[:1000])
    download(f"{address}/a", tmp_path / "a", reporter.note)
    assert Server.asked[1:] == ["bytes=1000-"]
    (tmp_path / "b.partial").write_bytes(CONTENT + b"x")
    download(f"{address}/b", tmp_path / "b", reporter.note)
    (tmp_path / "c.partial").write_bytes(CONTENT[:1000])
    download(f"{address}/always-whole", tmp_path / "c", reporter.note)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}
    assert all(path.read_bytes() == CONTENT for path in tmp_path.iterdir())


def test_a_download_waits_for_that_of_another_process(address, tmp_path, reporter):
    Server.asked = ["counted"]
    partial = tmp_path / "w.pt.partial"
    partial.write_bytes(CONTENT[:1000])
    with partial.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=download, args=(f"{address}/w.pt", tmp_path / "w.pt", reporter.note))
        waiting.start()
        while not reporter.notes:
            time.sleep(0.01)
        assert "waiting for another process" in reporter.notes[0]
        other.write(CONTENT[1000:])
        partial.replace(tmp_path / "w.pt")
    waiting.join()
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert Server.asked == ["counted"]


def test_fetch_keeps_checks_and_finds_the_file(address, tmp_path, reporter, monkeypatch):
    monkeypatch.setenv("LTDPIPE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_address", lambda _card: f"{address}/w.pt")
    card = dataclasses.replace(BACKBONES["clip-vit-b-32"], sha256=hashlib.sha256(CONTENT).hexdigest())
    assert present_weights(card) is None
    path = fetch_weights(card, reporter.note)
    assert path == present_weights(card) == tmp_path / "weights" / "w.pt"
    asked = len(Server.asked)
    assert fetch_weights(card, reporter.note) == path
    assert len(Server.asked) == asked
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ResourceError, match=r"w.pt is not the weights file of clip-vit-b-32"):
        fetch_weights(card, reporter.note)


def test_weights_are_kept_in_the_users_cache_and_found_where_openais_package_keeps_them(
    address, tmp_path, reporter, monkeypatch
):
    Server.asked = ["counted"]
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_address", lambda _card: f"{address}/w.pt")
    card = dataclasses.replace(BACKBONES["clip-vit-b-32"], sha256=hashlib.sha256(CONTENT).hexdigest())
    shared = tmp_path / ".cache" / "clip" / "w.pt"
    shared.parent.mkdir(parents=True)
    shared.write_bytes(CONTENT)
    assert fetch_weights(card, reporter.note) == present_weights(card) == shared
    assert Server.asked == ["counted"]
    shared.unlink()
    assert fetch_weights(card, reporter.note) == tmp_path / ".cache" / "ltdpipe" / "weights" / "w.pt"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fetch_weights(card, reporter.note) == tmp_path / "cache" / "ltdpipe" / "weights" / "w.pt"


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


def test_what_cannot_be_had_is_explained(address, tmp_path, reporter, monkeypatch):
    monkeypatch.setenv("LTDPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (f"{address}/missing", "http://127.0.0.1:9/w.pt"):
        monkeypatch.setattr(weights, "_address", lambda _card, place=place: place)
        with pytest.raises(ResourceError, match=r"cannot be downloaded .*ltdpipe fetch clip-vit-l-14"):
            fetch_weights(BACKBONES["clip-vit-l-14"], reporter.note)
    assert Server.asked == [None]
