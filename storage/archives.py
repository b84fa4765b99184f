"""Images inside ``.zip``, ``.tar`` and Parquet files, read in place: nothing is unpacked.

A member is named ``archive!/member``. A row of a Parquet file of images is named by its number in eight digits, so
that the order of names is the order of rows, and by its file name where the file states one:
``part-0.parquet!/00000012/photo.png``. Compressed tar files have no random access and are refused. Of a remote archive
only the byte ranges of its members are fetched.
"""

from __future__ import annotations

import errno
import posixpath
import stat
import tarfile
import threading
import weakref
import zipfile
from bisect import bisect_right
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import DataError, first_line
from storage.remote import ArchiveError, opened, prefetch, stamp_of

if TYPE_CHECKING:
    from collections.abc import Iterator


ARCHIVE_EXTENSIONS = (".zip", ".tar", ".parquet")
# Archives of images that cannot be read at a random place; users have to unpack them.
CLOSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar", ".z01", ".001")
MOST_IMAGE_BYTES = 1 << 29  # the largest photographs are a tenth of it; an image is held in memory to be decoded
_BUFFER = 1 << 16  # bytes that are read at a time behind the end of a tar file
_UNIX = 3  # the system that a zip file states its modes for


class Member(NamedTuple):
    """An entry of an archive.

    Attributes:
        name: as the archive spells it, with slashes.
        size: in bytes.
        start: where its bytes begin in a tar file, its header in a zip file.
        kind: what it is, empty for a regular file.
    """

    name: str
    size: int
    start: int
    kind: str = ""


def list_members(location: str) -> list[Member]:
    """Return the entries of a ``.zip`` or ``.tar`` file but its folders, in its own order.

    Raises:
        ArchiveError: it is damaged, encrypted, or compressed in a way that cannot be read in place.
        OSError: it is not there, or may not be read.
    """
    with readable(location):
        return _archive(location, stamp_of(location, again=False)).entries


def read_member(location: str, member: str) -> bytes:
    """Read one member of an archive, or one image of a Parquet file.

    Raises:
        DataError: the archive is damaged, or has no such member, or that is larger than ``MOST_IMAGE_BYTES``.
        OSError: the archive is not there.
    """
    with readable(location):
        stamp = stamp_of(location, again=False)
        if _is_parquet(location):
            return _read_row(location, stamp, member)
        return _archive(location, stamp).read(member)


def member_size(location: str, member: str) -> int | None:
    """Return the size that a manifest states for a member, None if it is not there; a Parquet row has its file's.

    Raises:
        ArchiveError: the archive is damaged.
    """
    try:
        with readable(location):
            stamp = stamp_of(location, again=False)
            if _is_parquet(location):
                is_row = member[:8].isdecimal() and int(member[:8]) < _row_starts(location, stamp)[-1]
                return stamp[0] if is_row else None
            found = _archive(location, stamp).member(member)
            return None if found is None else found.size
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
        reason = first_line(error)
        raise ArchiveError(f"archive {location} cannot be read ({reason}); fetch it again, or unpack it") from error


def identity(name: str) -> str:
    """Return what all spellings of a member's name have in common: ``./a//1.png`` and ``/a/1.png`` are ``a/1.png``."""
    if "//" in name or "./" in name or name.startswith("/"):
        return posixpath.normpath(name.lstrip("/"))
    return name


class _Archive:
    """An opened zip or tar file and its entries, folders left out; threads may share it."""

    def __init__(self, location: str) -> None:
        self._location, self._lock = location, threading.Lock()
        self._file = opened(location)
        weakref.finalize(self, self._file.close)
        self._zip = zipfile.ZipFile(self._file) if location.lower().endswith(".zip") else None
        self.entries = list(_tar_members(self._file) if self._zip is None else _zip_members(self._zip))
        self._by_name = {identity(entry.name): entry for entry in self.entries if not entry.kind}

    def member(self, name: str) -> Member | None:
        """Return a regular file by any spelling of its name, None where there is none."""
        return self._by_name.get(identity(name if self._zip is None else _slashes(name)))

    def read(self, name: str) -> bytes:
        """Return the bytes of a regular file."""
        member = self.member(name)
        if member is None:
            raise DataError(f"{self._location} has no member {name!r}")
        check_size(member.size, f"{self._location}!/{name}")
        with self._lock:
            if self._zip is not None:
                # up to the next member: the length of its own header is not known
                prefetch(self._file, member.start, lambda: self._starts[bisect_right(self._starts, member.start)])
                return self._zip.read(self._infos[member.start])
            prefetch(self._file, member.start, lambda: member.start + member.size)
            self._file.seek(member.start)
            content = self._file.read(member.size)
        if len(content) != member.size:
            raise EOFError("it is cut off")
        return content

    @cached_property
    def _infos(self) -> dict[int, zipfile.ZipInfo]:
        """Where the header of a member of a zip file begins -> what the reader needs of it."""
        return {} if self._zip is None else {info.header_offset: info for info in self._zip.infolist()}

    @cached_property
    def _starts(self) -> list[int]:
        """Where the members of a zip file and the list of them begin, in order."""
        return [*sorted(self._infos), 0 if self._zip is None else self._zip.start_dir]


@lru_cache(maxsize=8)
def _archive(location: str, _stamp: tuple[int, int]) -> _Archive:
    return _Archive(location)


def _is_parquet(location: str) -> bool:
    return location.lower().endswith(".parquet")


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
        yield Member(name, info.file_size, info.header_offset, kind)


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
