"""Downloads from a real server on this machine: resumed, checked, and failures in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import threading

import pytest

from stages.extract import fetch as fetch_module
from stages.extract.fetch import download, fetch_weights, present_weights
from stages.extract.registry import BACKBONES
from storage.errors import ResourceError

CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; the first answer breaks off half-way."""

    asked: list[str | None]

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range"))
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
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


def test_rest_of_an_earlier_run_is_used_and_one_that_is_too_long_is_not(address, tmp_path, reporter):
    Server.asked = ["counted"]  # no break this time
    (tmp_path / "a.partial").write_bytes(CONTENT[:1000])
    download(f"{address}/a", tmp_path / "a", reporter.note)
    assert Server.asked[1:] == ["bytes=1000-"]
    (tmp_path / "b.partial").write_bytes(CONTENT + b"x")
    download(f"{address}/b", tmp_path / "b", reporter.note)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == CONTENT


def test_fetch_keeps_checks_and_finds_the_file(address, tmp_path, reporter, monkeypatch):
    monkeypatch.setenv("LTDPIPE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(fetch_module, "_address", lambda _card: f"{address}/w.pt")
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


def test_what_cannot_be_had_is_explained(address, tmp_path, reporter, monkeypatch):
    monkeypatch.setenv("LTDPIPE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (f"{address}/missing", "http://127.0.0.1:9/w.pt"):
        monkeypatch.setattr(fetch_module, "_address", lambda _card, place=place: place)
        with pytest.raises(ResourceError, match=r"cannot be downloaded .*ltdpipe fetch clip-vit-l-14"):
            fetch_weights(BACKBONES["clip-vit-l-14"], reporter.note)
    assert Server.asked == [None]
