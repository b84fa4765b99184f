"""Images inside ``.zip``, ``.tar`` and Parquet files, read in place: nothing is unpacked.

A member is named ``archive!/member``. A row of a Parquet file of images is named by its number in eight digits, so
that the order of names is the order of rows, and by its file name where the file states one:
``part-0.parquet!/00000012/photo.png``. Opened archives are kept per process, as forked workers must not share a file
offset. Compressed tar files have no random access and are refused.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from typing import IO, TYPE_CHECKING, Any, cast

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ARCHIVE_EXTENSIONS = (".zip", ".tar", ".parquet")
# Archives of images that cannot be read at a random place; users have to unpack them.
CLOSED_EXTENSIONS = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar", ".z01", ".001")


def is_url(location: str) -> bool:
    """Tell whether a location is a URL of fsspec instead of a local path."""
    return "://" in location


def stamp_of(location: str) -> tuple[int, int]:
    """Return (size in bytes, modification time in ns) of a file; the time is 0 where a remote store has none.

    Raises:
        OSError: it is not there.
    """
    if not is_url(location):
        status = os.stat(location)  # noqa: PTH116 - names may hold bytes that are not UTF-8
        return status.st_size, status.st_mtime_ns
    filesystem, path = fsspec.core.url_to_fs(location)
    info = filesystem.info(path)
    return int(info.get("size") or 0), mtime_ns(info)


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
    with fsspec.open(location, "rb") if is_url(location) else open(location, "rb") as file:  # noqa: PTH123 - as above
        yield cast("IO[bytes]", file)


def list_members(location: str) -> Iterator[tuple[str, int]]:
    """Yield (name, size in bytes) of the regular files in a ``.zip`` or ``.tar`` file, in its own order.

    Raises:
        DataError: the archive is damaged or compressed in a way that cannot be read in place.
    """
    with readable(location), opened(location) as file:
        if location.lower().endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                yield from ((info.filename, info.file_size) for info in archive.infolist() if not info.is_dir())
        else:
            yield from ((name, size) for name, (_, size) in _tar_index(file).items())


def read_member(location: str, member: str) -> bytes:
    """Read one member of an archive, or one image of a Parquet file.

    Raises:
        DataError: the archive is damaged, or has no such member.
        OSError: the archive is not there.
    """
    read = _READERS[location[location.rindex(".") :].lower()]
    with readable(location):
        return read(location, member)


def member_size(location: str, member: str) -> int | None:
    """Return the size that a manifest states for a member, None if it is not there; a Parquet row has its file's.

    Raises:
        DataError: the archive is damaged.
    """
    extension = location[location.rindex(".") :].lower()
    try:
        with readable(location):
            stamp = stamp_of(location)
            if extension == ".zip":
                return _zip(location, stamp, os.getpid()).getinfo(member).file_size
            if extension == ".tar":
                return _tar(location, stamp, os.getpid())[member][1]
            is_row = member[:8].isdecimal() and int(member[:8]) < _row_starts(location, stamp, os.getpid())[-1]
            return stamp[0] if is_row else None
    except (OSError, KeyError):
        return None


def image_column(schema: pa.Schema) -> str | None:
    """Find the column of encoded images in a Parquet file: binary, or a struct with the field ``bytes``."""
    found = []
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and any(child.name == "bytes" for child in kind):
            found.append(f"{field.name}.bytes")
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            found.append(field.name)
    named = [name for name in found if name.startswith(("image", "img", "jpg", "png"))]
    return next(iter(named or found), None)


@contextmanager
def readable(location: str) -> Iterator[None]:
    """Turn what the readers of damaged archives raise into a ``DataError`` that names the archive."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        tarfile.TarError,
        pa.ArrowException,
        RuntimeError,
        UnicodeDecodeError,
    ) as error:
        raise DataError(
            f"archive {location} cannot be read ({str(error).splitlines()[0]}); fetch it again, or unpack it"
        ) from error


def _read_zip(location: str, member: str) -> bytes:
    try:
        return _zip(location, stamp_of(location), os.getpid()).read(member)
    except KeyError as error:
        raise DataError(f"{location} has no member {member!r}") from error


def _read_tar(location: str, member: str) -> bytes:
    place = _tar(location, stamp_of(location), os.getpid()).get(member)
    if place is None:
        raise DataError(f"{location} has no member {member!r}")
    with opened(location) as file:
        file.seek(place[0])
        return file.read(place[1])


def _read_parquet(location: str, member: str) -> bytes:
    if not member[:8].isdecimal():
        raise DataError(f"{location} has no row {member!r}; rows are named by their number in eight digits")
    row, stamp = int(member[:8]), stamp_of(location)
    starts = _row_starts(location, stamp, os.getpid())
    group = bisect_right(starts, row) - 1
    if group >= len(starts) - 1:
        raise DataError(f"{location} has {starts[-1]} rows, not {row + 1}")
    content = _images(location, stamp, os.getpid(), group)[row - starts[group]].as_py()
    if content is None:
        raise DataError(f"{location} has no image bytes in row {row}")
    return cast("bytes", content)


_READERS: dict[str, Callable[[str, str], bytes]] = {".zip": _read_zip, ".tar": _read_tar, ".parquet": _read_parquet}


@lru_cache(maxsize=8)
def _zip(location: str, _stamp: tuple[int, int], _process: int) -> zipfile.ZipFile:
    # ZipFile closes what it holds when it is evicted, and its reads are locked against other threads.
    return zipfile.ZipFile(fsspec.open(location, "rb").open() if is_url(location) else location)


@lru_cache(maxsize=8)
def _tar(location: str, _stamp: tuple[int, int], _process: int) -> dict[str, tuple[int, int]]:
    with opened(location) as file:
        return _tar_index(file)


def _tar_index(file: IO[bytes]) -> dict[str, tuple[int, int]]:
    """Name -> (offset of the first byte, size) of the regular files of a tar file."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        return {info.name: (info.offset_data, info.size) for info in archive if info.isreg() and info.sparse is None}


@lru_cache(maxsize=64)
def _row_starts(location: str, _stamp: tuple[int, int], _process: int) -> tuple[int, ...]:
    """First row of each row group, and the number of rows."""
    with opened(location) as file:
        metadata = pq.ParquetFile(file).metadata
        return (0, *accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))


@lru_cache(maxsize=2)
def _images(location: str, _stamp: tuple[int, int], _process: int, group: int) -> pa.ChunkedArray:
    """The encoded images of one row group; two are kept, as rows are read in order."""
    with opened(location) as file:
        parquet = pq.ParquetFile(file)
        column = image_column(parquet.schema_arrow)
        if column is None:
            raise DataError(f"{location} has no column of image bytes")
        images = parquet.read_row_group(group, columns=[column], use_threads=False).column(0)
        return pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
