"""Files on disk and behind URLs of fsspec: size, time, and reading at random places, by byte ranges where remote.

fsspec's own caches of open files do not serve archives: their blocks have one size, and an archive has long reads of
images between short reads of headers. With any of them one of both takes several times the requests or the bytes.
"""

from __future__ import annotations

import io
import os
from datetime import datetime
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, cast

import fsspec

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

_BLOCK = 1 << 19  # bytes of a remote archive that one request fetches when its members are listed
_BLOCKS = 16  # of one archive that are kept in memory
_BUFFER = 1 << 16  # bytes; a longer read is a request of its own


class ArchiveError(DataError):
    """An archive is damaged, or holds something for which it cannot be read in place."""


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


def opened(location: str) -> IO[bytes]:
    """Open a local file or a URL for reading at random places."""
    if not is_url(location):
        return open(location, "rb")  # noqa: PTH123 - names may hold bytes that are not UTF-8
    return cast("IO[bytes]", io.BufferedReader(_Ranges(_remote(location, stamp_of(location, again=False))), _BUFFER))


def prefetch(file: IO[bytes], start: int, stop: Callable[[], int]) -> None:
    """Fetch the bytes of a remote file that are read next, with one request; of a local file do nothing."""
    raw = getattr(file, "raw", None)
    if isinstance(raw, _Ranges):
        raw.remote.fetch(start, stop())


class _Remote:
    """What was fetched of a remote file: the last few blocks, and one range; threads may share it."""

    def __init__(self, location: str, size: int) -> None:
        self._filesystem, self._path = fsspec.core.url_to_fs(location)
        self._location, self.size = location, size
        self._blocks: dict[int, bytes] = {}  # first byte -> content
        self._range = (0, b"")

    def read(self, start: int, length: int) -> memoryview:
        """Return bytes from ``start`` on, at most ``length``; none at the end only."""
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
