"""Images in folders, archives, Parquet files and behind URLs are read through one resolver."""

import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from running import PROJECT
from stages.scan.run import run
from storage.archives import image_column, list_members, mtime_ns
from storage.errors import DataError
from storage.sources import Sources, base_of

CONTENT = {"a/1.png": b"one", "a/b.c/2.JPG": b"two two", "notes.txt": b"no image"}


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENT.items():
            archive.writestr(name, content)
    with tarfile.open(tmp_path / "y.tar", "w") as tar:
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    images = [b"p0", b"p1", None, b"p3"]
    pq.write_table(
        pa.table({"image": [None if i is None else {"bytes": i, "path": "x"} for i in images]}),
        tmp_path / "z.parquet",
        row_group_size=2,
    )
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
def test_the_bytes_and_size_of_every_kind_of_source(folder, path, content, size):
    sources = Sources.of(folder)
    assert sources.read(path) == content
    assert sources.size(path) == (size or (folder / "z.parquet").stat().st_size)
    assert sources.where(path) == f"{folder}/{path}"


@pytest.mark.parametrize(
    "path", ["plain/a/9.png", "x.ZIP!/a/9.png", "y.tar!/9", "z.parquet!/00000004", "z.parquet!/a", "no.zip!/a"]
)
def test_what_is_not_there_has_no_size_and_cannot_be_read(folder, path):
    assert Sources.of(folder).size(path) is None
    with pytest.raises((DataError, FileNotFoundError)):
        Sources.of(folder).read(path)


def test_a_parquet_row_without_bytes_is_an_error(folder):
    with pytest.raises(DataError, match="no image bytes in row 2"):
        Sources.of(folder).read("z.parquet!/00000002")


def test_the_second_root(folder):
    assert Sources.of(folder, folder / "plain").read("@reals/a/1.png") == b"one"
    assert Sources.of(folder, folder / "x.ZIP").read("@reals/x.ZIP!/a/1.png") == b"one"
    with pytest.raises(DataError, match=r"second root of its corpus, and none is set.*corpora.<name>.reals"):
        Sources.of(folder).read("@reals/a/1.png")


def test_a_root_that_is_one_file_counts_from_its_folder(folder):
    assert Sources.of(folder / "x.ZIP").read("x.ZIP!/a/1.png") == b"one"
    table, _ = run(corpus="x", root=folder / "x.ZIP", layout="unlabelled")
    assert table["path"].to_pylist() == ["x.ZIP!/a/1.png", "x.ZIP!/a/b.c/2.JPG"]
    assert table["size_bytes"].to_pylist() == [3, 7]


def test_a_root_in_this_folder_counts_from_here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert Sources.of("x.ZIP").read("x.ZIP!/a/1.png") == b"one"
    assert Sources.of("plain/").read("a/1.png") == b"one"


@pytest.mark.parametrize("name", ["X.ZIP", "y.tar", "z.Parquet", "list.csv", "list.TSV"])
def test_a_url_of_one_file_counts_from_its_folder(name):
    assert base_of(f"s3://bucket/folder/{name}") == "s3://bucket/folder"
    assert base_of(f"s3://bucket/folder/{name}/") == f"s3://bucket/folder/{name}"


def test_one_remote_root_of_two_is_enough_to_be_slow(folder):
    assert not Sources.of(folder, folder).is_remote
    assert Sources.of("s3://bucket", folder).is_remote
    assert Sources.of(folder, "s3://bucket").is_remote


def test_a_folder_whose_name_begins_like_the_second_root_s_belongs_to_the_first(tmp_path):
    (tmp_path / "@reals-of-2017").mkdir()
    (tmp_path / "@reals-of-2017" / "1.png").write_bytes(b"mine")
    assert Sources.of(tmp_path, tmp_path / "second").read("@reals-of-2017/1.png") == b"mine"


def test_what_looks_like_an_archive_inside_an_archive_is_a_folder_of_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("in.zip!/1.png", b"inside")
    assert Sources.of(tmp_path).read("x.zip!/in.zip!/1.png") == b"inside"


def test_a_member_has_the_time_of_its_archive(folder):
    for path, size in (("x.ZIP!/a/1.png", 3), ("y.tar!/./a/1.png", 3), ("z.parquet!/00000001", None)):
        status = (folder / path.partition("!")[0]).stat()
        assert Sources.of(folder).stamp(path) == (size or status.st_size, status.st_mtime_ns)


def test_the_time_of_a_remote_file_is_in_nanoseconds_whatever_the_store_calls_it():
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    expected = int(when.timestamp()) * 10**9
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        assert mtime_ns({"size": 1, key: when}) == mtime_ns({key: when.timestamp()}) == expected
    assert mtime_ns({"created": 1, "mtime": 2.5}) == 2_500_000_000
    assert mtime_ns({"mtime": None, "ETag": "x"}) == 0


def test_members_of_archives_are_regular_files_alone(folder):
    with zipfile.ZipFile(folder / "x.ZIP", "a") as archive:
        archive.mkdir("empty")
    found = list_members(str(folder / "x.ZIP"))
    assert {member.name: member.size for member in found} == {name: len(content) for name, content in CONTENT.items()}
    with (folder / "hole.png").open("wb") as file:
        file.truncate(10**6)
    (folder / "link.png").symlink_to("plain/a/1.png")
    subprocess.run(["tar", "-cSf", "w.tar", "hole.png", "link.png", "plain"], cwd=folder, check=True)
    members = {f"plain/{name}": len(content) for name, content in CONTENT.items()}
    found = list_members(str(folder / "w.tar"))
    assert {member.name: member.size for member in found if not member.kind} == members
    # the bytes of a file with holes lie in pieces
    assert {member.name: member.kind for member in found if member.kind} == {
        "hole.png": "file with holes",
        "link.png": "link",
    }


def test_the_column_of_images_is_the_one_that_is_called_so():
    def schema(**columns):
        return pa.schema(list(columns.items()))

    in_a_struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert image_column(schema(thumbnail=pa.binary(), image=in_a_struct), "x") == ("image.bytes", ["thumbnail"])
    assert image_column(schema(mask=in_a_struct, jpg=pa.large_binary()), "x") == ("jpg", ["mask"])
    assert image_column(schema(image=pa.binary(), image_mask=pa.binary()), "x") == ("image", ["image_mask"])
    assert image_column(schema(image=pa.string(), size=pa.struct([("width", pa.int32())])), "x") == (None, [])
    for names in (("first", "second"), ("image_a", "image_b"), ("image", "jpg")):
        with pytest.raises(DataError, match=f"x cannot be read: {names[0]}, {names[1]} are all columns of bytes"):
            image_column(schema(**dict.fromkeys(names, pa.binary())), "x")


def test_an_encrypted_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("1.png", b"secret")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"archive .*x\.zip cannot be read .*encrypted.*unpack it"):
        Sources.of(tmp_path).read("x.zip!/1.png")


def test_an_archive_whose_names_are_damaged_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("caf\u00e9/1.png", b"one")
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes().replace(b"\xc3\xa9", b"\xff\xa9"))
    with pytest.raises(DataError, match=r"archive .*x\.zip cannot be read .*fetch it again"):
        run(corpus="x", root=tmp_path, layout="unlabelled")
    with pytest.raises(DataError, match=r"archive .*x\.zip cannot be read"):
        Sources.of(tmp_path).read("x.zip!/caf\u00e9/1.png")


def test_a_process_that_only_reads_images_reads_them_from_parquet_files(folder):
    script = (
        "import sys; from storage.sources import Sources; print(Sources.of(sys.argv[1]).read('z.parquet!/00000003'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "b'p3'\n", done.stderr


def test_an_archive_that_changed_is_read_anew(folder):
    assert Sources.of(folder).read("x.ZIP!/a/1.png") == b"one"
    with zipfile.ZipFile(folder / "x.ZIP", "w") as archive:
        archive.writestr("a/1.png", b"another")
    assert Sources.of(folder).read("x.ZIP!/a/1.png") == b"another"
    assert Sources.of(folder).read("y.tar!/./a/1.png") == b"one"
    with tarfile.open(folder / "y.tar", "w") as tar:
        tar.add(folder / "plain" / "a" / "b.c" / "2.JPG", "before.png")
        tar.add(folder / "plain" / "notes.txt", "./a/1.png")
    assert Sources.of(folder).read("y.tar!/./a/1.png") == b"no image"
    assert Sources.of(folder).read("z.parquet!/00000003") == b"p3"
    pq.write_table(pa.table({"image": [b"%d" % row for row in range(6)]}), folder / "z.parquet")
    assert Sources.of(folder).read("z.parquet!/00000003") == b"3"
    assert Sources.of(folder).size("z.parquet!/00000005") is not None


def test_a_damaged_archive_is_named(folder):
    (folder / "x.ZIP").write_bytes(b"PK no more")
    with pytest.raises(DataError, match=r"archive .*x.ZIP cannot be read"):
        Sources.of(folder).read("x.ZIP!/a/1.png")
    with pytest.raises(DataError, match=r"archive .*x.ZIP cannot be read"):
        Sources.of(folder).size("x.ZIP!/a/1.png")


def test_a_damaged_member_is_named_by_its_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", b"some bytes " * 100)
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[40:50] = b"\xff" * 10  # behind the member's header of 35 bytes
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"archive .*x.zip cannot be read"):
        Sources.of(tmp_path).read("x.zip!/1.png")


def test_names_that_are_not_utf8_and_folders_that_end_in_an_exclamation_mark(tmp_path):
    (tmp_path / "wow!").mkdir()
    (tmp_path / "wow!" / "1.png").write_bytes(b"wow")
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"bytes")
    assert Sources.of(tmp_path).read("wow!/1.png") == b"wow"
    assert Sources.of(tmp_path).read("\\xff.png") == b"bytes"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="no regular file"):
        Sources.of(tmp_path).read("pipe.png")


def test_many_threads_read_one_archive(folder):
    results = []
    threads = [
        threading.Thread(target=lambda: results.extend(Sources.of(folder).read("x.ZIP!/a/1.png") for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"one"] * 200


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
        assert Sources.of("memory://bucket").is_remote
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_web_server_is_scanned_and_read(folder):
    pytest.importorskip("aiohttp")
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}/plain/a"
        try:
            table, _ = run(corpus="web", root=root, layout="unlabelled")
            assert [Sources.of(root).read(path) for path in table["path"].to_pylist()] == [b"one", b"two two"]
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class _Ranges(SimpleHTTPRequestHandler):
    """A server that knows byte ranges, and counts what it is asked for."""

    requests: ClassVar[list[tuple[str, int]]] = []  # method, bytes sent
    knows_ranges = True

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(Path(self.translate_path(self.path)).stat().st_size))
        self.end_headers()
        self.requests.append(("HEAD", 0))

    def do_GET(self):
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
    monkeypatch.setattr(_Ranges, "requests", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _archive_of(images, file):
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in images.items():
                archive.writestr(name, content)
    elif file.suffix == ".tar":
        with tarfile.open(file, "w") as tar:
            for name, content in images.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    else:
        pq.write_table(pa.table({"image": list(images.values())}), file, row_group_size=5, compression="none")


@pytest.mark.parametrize("extension", ["tar", "zip", "parquet"])
@pytest.mark.parametrize("kilobytes", [30, 1200])
def test_of_a_remote_archive_only_the_bytes_of_its_images_are_fetched(served, tmp_path, extension, kilobytes):
    images = {f"{number:08d}": os.urandom(kilobytes << 10) for number in range(20)}
    file = tmp_path / f"x.{extension}"
    _archive_of(images, file)
    sources = Sources.of(f"{served}/x.{extension}")
    assert {name: sources.read(f"x.{extension}!/{name}") for name in images} == images
    methods, counts = zip(*_Ranges.requests, strict=True)
    assert methods.count("HEAD") == 1
    # between large members of a tar file lie headers, one request each
    assert methods.count("GET") <= (41 if extension == "tar" and kilobytes > 1000 else 21)
    assert sum(counts) < 1.1 * file.stat().st_size + (1 << 18)


def test_a_server_without_byte_ranges_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setattr(_Ranges, "knows_ranges", False)
    for name, kilobytes in (("small", 100), ("large", 3000)):
        _archive_of({"1.png": os.urandom(kilobytes << 10)}, tmp_path / f"{name}.zip")
    assert len(Sources.of(served).read("small.zip!/1.png")) == 100 << 10
    with pytest.raises(
        DataError, match=r"large.zip cannot be read in place: its server gave .* no byte ranges.*download"
    ):
        Sources.of(served).read("large.zip!/1.png")


@pytest.mark.parametrize("extension", ["tar", "zip"])
def test_a_scan_and_the_reading_after_it_ask_for_an_archive_s_size_once(served, tmp_path, extension):
    images = {f"{number}.png": os.urandom(40 << 10) for number in range(20)}
    _archive_of(images, tmp_path / f"x.{extension}")
    root = f"{served}/x.{extension}"
    table, _ = run(corpus="web", root=root, layout="unlabelled")
    assert {path.partition("!/")[2]: Sources.of(root).read(path) for path in table["path"].to_pylist()} == images
    methods, counts = zip(*_Ranges.requests, strict=True)
    assert methods.count("HEAD") == 1
    assert methods.count("GET") <= 20
    assert sum(counts) < 1.1 * (tmp_path / f"x.{extension}").stat().st_size
