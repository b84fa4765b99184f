"""Images in folders, archives, Parquet files and behind URLs are read through one resolver."""

import io
import os
import re
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.scan.run import run
from storage.errors import DataError
from storage.sources import Sources, base_of

CONTENT = {"a/1.png": b"one", "a/b.c/2.JPG": b"two two", "notes.txt": b"no image"}


def write_archive(file, members):
    """Write a zip, tar or Parquet file of name -> content."""
    if file.suffix.lower() == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    elif file.suffix == ".tar":
        with tarfile.open(file, "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        pq.write_table(pa.table({"image": list(members.values())}), file, row_group_size=5, compression="none")


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(content)
    write_archive(tmp_path / "x.ZIP", CONTENT)
    write_archive(tmp_path / "y.tar", {f"./{name}": content for name, content in CONTENT.items()})
    images = [None if content is None else {"bytes": content, "path": "x"} for content in (b"p0", b"p1", None, b"p3")]
    pq.write_table(pa.table({"image": images}), tmp_path / "z.parquet", row_group_size=2)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "content", "size"),
    [
        ("plain/a/b.c/2.JPG", b"two two", 7),
        ("x.ZIP!/a/b.c/2.JPG", b"two two", 7),
        ("y.tar!/./a/1.png", b"one", 3),
        ("z.parquet!/00000003", b"p3", None),
        ("z.parquet!/00000001/name.png", b"p1", None),
    ],
)
def test_the_bytes_size_and_time_of_every_kind_of_source(folder, path, content, size):
    sources = Sources.of(folder)
    status = (folder / path.partition("!")[0]).stat()  # a member has the time of its archive
    assert sources.read(path) == content
    assert sources.stamp(path) == (size or status.st_size, status.st_mtime_ns)
    assert sources.where(path) == f"{folder}/{path}"


@pytest.mark.parametrize(
    "path", ["plain/a/9.png", "x.ZIP!/a/9.png", "y.tar!/9", "z.parquet!/00000004", "z.parquet!/a", "no.zip!/a"]
)
def test_what_is_not_there_has_no_size_and_cannot_be_read(folder, path):
    assert Sources.of(folder).size(path) is None
    with pytest.raises((DataError, FileNotFoundError)):
        Sources.of(folder).read(path)
    with pytest.raises(DataError, match="no image bytes in row 2"):
        Sources.of(folder).read("z.parquet!/00000002")


def test_the_second_root(folder, tmp_path):
    assert Sources.of(folder, folder / "plain").read("@reals/a/1.png") == b"one"
    assert Sources.of(folder, folder / "x.ZIP").read("@reals/x.ZIP!/a/1.png") == b"one"
    with pytest.raises(DataError, match=r"second root of its corpus, and none is set.*corpora.<name>.reals"):
        Sources.of(folder).read("@reals/a/1.png")
    (tmp_path / "@reals-of-2017").mkdir()
    (tmp_path / "@reals-of-2017" / "1.png").write_bytes(b"mine")
    assert Sources.of(tmp_path, tmp_path / "second").read("@reals-of-2017/1.png") == b"mine"
    assert not Sources.of(folder, folder).is_remote
    assert Sources.of("s3://bucket", folder).is_remote
    assert Sources.of(folder, "s3://bucket").is_remote  # one remote root of two is enough to be slow


def test_a_root_that_is_one_file_counts_from_its_folder(folder, monkeypatch):
    assert Sources.of(folder / "x.ZIP").read("x.ZIP!/a/1.png") == b"one"
    table, _ = run(corpus="x", root=folder / "x.ZIP", layout="unlabelled")
    assert table["path"].to_pylist() == ["x.ZIP!/a/1.png", "x.ZIP!/a/b.c/2.JPG"]
    assert table["size_bytes"].to_pylist() == [3, 7]
    monkeypatch.chdir(folder)
    assert Sources.of("x.ZIP").read("x.ZIP!/a/1.png") == b"one"
    assert Sources.of("plain/").read("a/1.png") == b"one"
    for name in ("X.ZIP", "y.tar", "z.Parquet", "list.csv", "list.TSV"):
        assert base_of(f"s3://bucket/folder/{name}") == "s3://bucket/folder"
        assert base_of(f"s3://bucket/folder/{name}/") == f"s3://bucket/folder/{name}"


def test_an_archive_that_changed_is_read_anew(folder):
    assert Sources.of(folder).read("x.ZIP!/a/1.png") == b"one"
    write_archive(folder / "x.ZIP", {"a/1.png": b"another"})
    assert Sources.of(folder).read("x.ZIP!/a/1.png") == b"another"
    assert Sources.of(folder).read("y.tar!/./a/1.png") == b"one"
    write_archive(folder / "y.tar", {"before.png": b"two two", "./a/1.png": b"no image"})
    assert Sources.of(folder).read("y.tar!/./a/1.png") == b"no image"
    assert Sources.of(folder).read("z.parquet!/00000003") == b"p3"
    write_archive(folder / "z.parquet", {f"{row}": b"%d" % row for row in range(6)})
    assert Sources.of(folder).read("z.parquet!/00000003") == b"3"
    assert Sources.of(folder).size("z.parquet!/00000005") is not None


def test_a_remote_store_is_scanned_and_read(folder):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "plain"), "/bucket/fake", recursive=True)
    memory.put(str(folder / "x.ZIP"), "/bucket/real/x.ZIP")
    try:
        table, summary = run(corpus="remote", root="memory://bucket", layout="folder")
        paths = table["path"].to_pylist()
        assert paths == ["fake/a/1.png", "fake/a/b.c/2.JPG", "real/x.ZIP!/a/1.png", "real/x.ZIP!/a/b.c/2.JPG"]
        assert [Sources.of("memory://bucket").read(path) for path in paths] == [b"one", b"two two"] * 2
        assert summary.skipped == {".txt": 2}
    finally:
        memory.rm("/bucket", recursive=True)


class _Server(SimpleHTTPRequestHandler):
    """A server that knows byte ranges, and counts what it is asked for."""

    requests: ClassVar[list[tuple[str, int]]] = []  # method, bytes sent
    knows_ranges = True

    def do_HEAD(self):
        self.requests.append(("HEAD", 0))
        super().do_HEAD()

    def do_GET(self):
        if Path(self.translate_path(self.path)).is_dir():
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.knows_ranges else None
        self.send_response(206 if asked else 200)
        if asked:
            content = content[int(asked[1]) : int(asked[2]) + 1]
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.requests.append(("GET", len(content)))

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(_Server, "requests", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("extension", ["tar", "zip", "parquet"])
@pytest.mark.parametrize("kilobytes", [30, 1200])
def test_of_a_remote_archive_only_the_bytes_of_its_images_are_fetched(served, tmp_path, extension, kilobytes):
    images = {f"{number:08d}.png": os.urandom(kilobytes << 10) for number in range(20)}
    file = tmp_path / f"x.{extension}"
    write_archive(file, images)
    root = f"{served}/x.{extension}"
    table, _ = run(corpus="web", root=root, layout="unlabelled")
    assert [Sources.of(root).read(path) for path in table["path"].to_pylist()] == list(images.values())
    methods, counts = zip(*_Server.requests, strict=True)
    assert methods.count("HEAD") == 1
    # between large members of a tar file lie headers, one request each
    assert methods.count("GET") <= (41 if extension == "tar" and kilobytes > 1000 else 21)
    assert sum(counts) < 1.1 * file.stat().st_size + (1 << 18)


def test_a_server_without_byte_ranges_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setattr(_Server, "knows_ranges", False)
    for name, kilobytes in (("small", 100), ("large", 3000)):
        write_archive(tmp_path / f"{name}.zip", {"1.png": os.urandom(kilobytes << 10)})
    assert len(Sources.of(served).read("small.zip!/1.png")) == 100 << 10
    with pytest.raises(
        DataError, match=r"large.zip cannot be read in place: its server gave .* no byte ranges.*download"
    ):
        Sources.of(served).read("large.zip!/1.png")
