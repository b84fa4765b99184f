"""Images inside ``.zip``, ``.tar`` and Parquet files, read in place: nothing is unpacked.

A member is named ``archive!/member``. A row of a Parquet file of images is named by its number in eight digits, so
that the order of names is the order of rows, and by its file name where the file states one:
``part-0.parquet!/00000012/photo.png``. Compressed tar files have no random access and are refused. Of a remote archive
only the byte ranges of its members are fetched.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import tarfile
import threading
import zipfile
from bisect import bisect_right
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

ARCHIVE_EXTENSIONS = (".zip", ".tar", ".parquet")
# Archives of images that cannot be read at a random place; users have to unpack them.
CLOSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar", ".z01", ".001")
MOST_IMAGE_BYTES = 1 << 29  # the largest photographs are a tenth of it; an image is held in memory to be decoded
_BLOCK = 1 << 19  # bytes of a remote archive that one request fetches when its members are listed
_BLOCKS = 16  # of one archive that are kept in memory
_BUFFER = 1 << 16  # bytes; a longer read is a request of its own
_UNIX = 3  # the system that a zip file states its modes for


class ArchiveError(DataError):
    """An archive is damaged, or holds something for which it cannot be read in place."""


class Member(NamedTuple):
    """An entry of an archive.

    Attributes:
        name: as the archive spells it, with slashes.
        size: in bytes.
        start: where its bytes begin in a tar file.
        kind: what it is, empty for a regular file.
    """

    name: str
    size: int
    start: int
    kind: str = ""


def is_url(location: str) -> bool:
    """Tell whether a location is a URL of fsspec instead of a local path."""
    return "://" in location


_remote_stamps: dict[str, tuple[int, int]] = {}


def stamp_of(location: str, *, again: bool = True) -> tuple[int, int]:
    """Return (size in bytes, modification time in ns) of a file; the time is 0 where a remote store has none.

    Args:
        location: a path or a URL.
        again: ask a remote store even where this process has asked it before.

    Raises:
        OSError: it is not there.
    """
    if not is_url(location):
        status = os.stat(location)  # noqa: PTH116 - names may hold bytes that are not UTF-8
        return status.st_size, status.st_mtime_ns
    if again or location not in _remote_stamps:
        filesystem, path = fsspec.core.url_to_fs(location)
        info = filesystem.info(path)
        _remote_stamps[location] = int(info.get("size") or 0), mtime_ns(info)
    return _remote_stamps[location]


def mtime_ns(info: dict[str, Any]) -> int:
    """Return the modification time in ns that fsspec's ``info`` of a remote file states, or 0."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return int(value.timestamp()) * 10**9
        if isinstance(value, (int, float)):
            return int(value * 10**9)
    return 0


@contextmanager
def opened(location: str) -> Iterator[IO[bytes]]:
    """Open a local file or a URL for reading at random places."""
    with _open(location, stamp_of(location, again=False)) as file:
        yield file


def _open(location: str, stamp: tuple[int, int]) -> IO[bytes]:
    if not is_url(location):
        return open(location, "rb")  # noqa: PTH123 - names may hold bytes that are not UTF-8
    return cast("IO[bytes]", io.BufferedReader(_Ranges(_remote(location, stamp)), _BUFFER))


class _Remote:
    """What was fetched of a remote file: the last few blocks, and one range; threads may share it."""

    def __init__(self, location: str, size: int) -> None:
        self._filesystem, self._path = fsspec.core.url_to_fs(location)
        self._location, self.size = location, size
        self._blocks: dict[int, bytes] = {}  # first byte -> content
        self._range = (0, b"")

    def read(self, start: int, length: int) -> memoryview:
        """Return bytes from ``start`` on, at most ``length`` and none at the end only."""
        stop = min(start + length, self.size)
        if stop <= start:
            return memoryview(b"")
        part = self._kept(start, start + 1)
        if part is None and length > _BUFFER:
            part = self.fetch(start, stop)
        elif part is None:
            first = start // _BLOCK * _BLOCK
            last = next(reversed(self._blocks), 0)
            # between large members one header is read, else what follows is wanted too
            length = _BLOCK if abs(first - last) <= _BLOCK or not self._blocks else _BUFFER
            first = first if length == _BLOCK else start
            self._blocks[first] = self._get(first, min(first + length, self.size))
            part = memoryview(self._blocks[first])[start - first :]
            for old in list(self._blocks)[:-_BLOCKS]:
                self._blocks.pop(old, None)
        return part[: stop - start]

    def fetch(self, start: int, stop: int) -> memoryview:
        """Return these bytes, with one request at most, and keep them for the reads that follow."""
        part = self._kept(start, stop)
        if part is None:
            self._range = start, self._get(start, stop)
            part = memoryview(self._range[1])
        return part

    def _get(self, start: int, stop: int) -> bytes:
        content: bytes = self._filesystem.cat_file(self._path, start=start, end=stop)
        if len(content) != stop - start:
            raise ArchiveError(
                f"archive {self._location} cannot be read in place: its server gave {len(content)} bytes where "
                f"{stop - start} were asked for, so it knows no byte ranges or the file has changed; download it"
            )
        return content

    def _kept(self, start: int, stop: int) -> memoryview | None:
        """Return what is kept from ``start`` on, None where it does not reach to ``stop``."""
        for first, content in (self._range, *self._blocks.items()):
            if first <= start and stop <= first + len(content):
                return memoryview(content)[start - first :]
        return None


@lru_cache(maxsize=8)
def _remote(location: str, stamp: tuple[int, int]) -> _Remote:
    return _Remote(location, stamp[0])


class _Ranges(io.RawIOBase):
    """A remote file for readers of archives."""

    def __init__(self, remote: _Remote) -> None:
        super().__init__()
        self.remote, self._at = remote, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + (0, self._at, self.remote.size)[whence], 0)
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        part = self.remote.read(self._at, len(view))
        view[: len(part)] = part
        self._at += len(part)
        return len(part)


def list_members(location: str) -> list[Member]:
    """Return the entries of a ``.zip`` or ``.tar`` file but its folders, in its own order.

    Raises:
        ArchiveError: it is damaged, encrypted, or compressed in a way that cannot be read in place.
        OSError: it is not there, or may not be read.
    """
    with readable(location):
        return _archive(location, stamp_of(location, again=False)).entries()


def read_member(location: str, member: str) -> bytes:
    """Read one member of an archive, or one image of a Parquet file.

    Raises:
        DataError: the archive is damaged, or has no such member, or that is larger than ``MOST_IMAGE_BYTES``.
        OSError: the archive is not there.
    """
    with readable(location):
        stamp = stamp_of(location, again=False)
        if location.lower().endswith(".parquet"):
            return _read_row(location, stamp, member)
        content = _archive(location, stamp).read(member)
    if content is None:
        raise DataError(f"{location} has no member {member!r}")
    return content


def member_size(location: str, member: str) -> int | None:
    """Return the size that a manifest states for a member, None if it is not there; a Parquet row has its file's.

    Raises:
        ArchiveError: the archive is damaged.
    """
    try:
        with readable(location):
            stamp = stamp_of(location, again=False)
            if location.lower().endswith(".parquet"):
                is_row = member[:8].isdecimal() and int(member[:8]) < _row_starts(location, stamp)[-1]
                return stamp[0] if is_row else None
            return _archive(location, stamp).size(member)
    except OSError:
        return None


def check_size(size: int, place: str) -> None:
    """Refuse what would fill the memory.

    Raises:
        DataError: it is larger than ``MOST_IMAGE_BYTES``.
    """
    if size > MOST_IMAGE_BYTES:
        raise DataError(f"{place} has {size} bytes, at most {MOST_IMAGE_BYTES} are read")


def image_column(schema: pa.Schema, location: str) -> tuple[str | None, list[str]]:
    """Find the columns of encoded images in a Parquet file: binary, or a struct with the field ``bytes``.

    Returns:
        The column to read, None where there is none, and the others. It is the only one, or the only one whose name
        is, or else begins with, ``image``, ``img``, ``jpg`` or ``png``.

    Raises:
        ArchiveError: there are several, and their names do not say which to read.
    """
    found = {}
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and any(child.name == "bytes" for child in kind):
            found[field.name] = f"{field.name}.bytes"
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            found[field.name] = field.name
    words = ("image", "img", "jpg", "png")
    for names in ([n for n in found if n in words], [n for n in found if n.startswith(words)], list(found)):
        if len(names) == 1:
            return found.pop(names[0]), list(found)
        if names:
            raise ArchiveError(
                f"archive {location} cannot be read: {', '.join(names)} are all columns of bytes; keep one, or call "
                "the one with the images `image`"
            )
    return None, []


@contextmanager
def readable(location: str) -> Iterator[None]:
    """Turn what the readers of damaged archives raise into an ``ArchiveError`` that names the archive."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # the readers raise nearly anything on damaged files, and so do remote stores
        # Arrow's and fsspec's errors have no number
        if isinstance(error, FileNotFoundError) or (
            isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        ):
            raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ArchiveError(f"archive {location} cannot be read ({reason}); fetch it again, or unpack it") from error


class _Archive:
    """An opened zip or tar file and the places of its members; threads may share it."""

    def __init__(self, location: str, stamp: tuple[int, int]) -> None:
        self._location, self._lock = location, threading.Lock()
        self._file = _open(location, stamp)
        self._zip = zipfile.ZipFile(self._file) if location.lower().endswith(".zip") else None
        infos = () if self._zip is None else self._zip.infolist()
        self._in_zip = {identity(_slashes(info.filename)): info for info in infos}
        self._entries = [] if self._zip is not None else list(_tar_members(self._file))
        self._in_tar = {identity(member.name): member for member in self._entries if not member.kind}

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def entries(self) -> list[Member]:
        """Return what it holds, in its own order; folders are left out."""
        return self._entries if self._zip is None else list(_zip_members(self._zip))

    def size(self, name: str) -> int | None:
        """Return the size of a regular file, None where there is none of this name, however it is spelled."""
        if self._zip is not None:
            info = self._in_zip.get(identity(_slashes(name)))
            return None if info is None else info.file_size
        member = self._in_tar.get(identity(name))
        return None if member is None else member.size

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a regular file, None where there is none of this name."""
        size = self.size(name)
        if size is None:
            return None
        check_size(size, f"{self._location}!/{name}")
        with self._lock:
            if self._zip is not None:
                info = self._in_zip[identity(_slashes(name))]
                # up to the next member: the length of its own header is not known
                self._fetch(info.header_offset, lambda: self._starts[bisect_right(self._starts, info.header_offset)])
                return self._zip.read(info)
            start = self._in_tar[identity(name)].start
            self._fetch(start, lambda: start + size)
            self._file.seek(start)
            content = self._file.read(size)
        if len(content) != size:
            raise EOFError("it is cut off")
        return content

    def _fetch(self, start: int, stop: Callable[[], int]) -> None:
        """Fetch the bytes of a remote file that are read next, with one request."""
        raw = getattr(self._file, "raw", None)
        if isinstance(raw, _Ranges):
            raw.remote.fetch(start, stop())

    @cached_property
    def _starts(self) -> list[int]:
        """Where the members of a zip file and the list of them begin, in order."""
        starts = sorted(info.header_offset for info in self._in_zip.values())
        return [*starts, 0 if self._zip is None else self._zip.start_dir]


@lru_cache(maxsize=8)
def _archive(location: str, stamp: tuple[int, int]) -> _Archive:
    return _Archive(location, stamp)


def identity(name: str) -> str:
    """Return what all spellings of a member's name have in common: ``./a//1.png`` and ``/a/1.png`` are ``a/1.png``."""
    if "//" in name or "./" in name or name.startswith("/"):
        return posixpath.normpath(name.lstrip("/"))
    return name


def _slashes(name: str) -> str:
    return name.replace("\\", "/")  # some programs on Windows write backslashes into zip files


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        name = _slashes(info.filename)
        mode = stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0
        if name.endswith("/") or mode == stat.S_IFDIR:
            continue
        if info.flag_bits & 1:
            raise zipfile.BadZipFile("it is encrypted")
        kind = "link" if mode == stat.S_IFLNK else "" if mode in {0, stat.S_IFREG} else "device or pipe"
        yield Member(name, info.file_size, 0, kind)


def _tar_members(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] # they would take a kilobyte each
            if info.size < 0:
                raise tarfile.ReadError(f"{info.name} has a negative size")
            if info.isdir():
                continue
            kind = "link" if info.islnk() or info.issym() else "" if info.isreg() else "device or pipe"
            yield Member(info.name, info.size, info.offset_data, "file with holes" if info.issparse() else kind)
        # tarfile takes what is no header for the end
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}: it is damaged or cut off")
        while content := file.read(_BUFFER):
            if content.strip(b"\0"):
                raise tarfile.ReadError("other files follow its end mark")


def _read_row(location: str, stamp: tuple[int, int], member: str) -> bytes:
    if not member[:8].isdecimal():
        raise DataError(f"{location} has no row {member!r}; rows are named by their number in eight digits")
    row, starts = int(member[:8]), _row_starts(location, stamp)
    group = bisect_right(starts, row) - 1
    if group >= len(starts) - 1:
        raise DataError(f"{location} has {starts[-1]} rows, not {row + 1}")
    content = _images(location, stamp, group)[row - starts[group]].as_py()
    if content is None:
        raise DataError(f"{location} has no image bytes in row {row}")
    return cast("bytes", content)


@lru_cache(maxsize=64)
def _row_starts(location: str, _stamp: tuple[int, int]) -> tuple[int, ...]:
    """First row of each row group, and the number of rows."""
    with opened(location) as file:
        metadata = pq.ParquetFile(file).metadata
        return (0, *accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))


@lru_cache(maxsize=2)
def _images(location: str, _stamp: tuple[int, int], group: int) -> pa.ChunkedArray:
    """The encoded images of one row group; two are kept, as rows are read in order."""
    with opened(location) as file:
        parquet = pq.ParquetFile(file)
        column, _ = image_column(parquet.schema_arrow, location)
        if column is None:
            raise DataError(f"{location} has no column of image bytes")
        images = parquet.read_row_group(group, columns=[column], use_threads=False).column(0)
        return pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
