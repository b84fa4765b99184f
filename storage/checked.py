"""Whether a shard still holds the bytes that were written, without hashing it each time it is opened.

A shard that was hashed once and found sound is remembered by device, inode, size and modification time. What was not
touched since needs no second look; what was copied, restored, overwritten or replaced is hashed again.
``ltdpipe verify`` hashes whatever is remembered, since a disk may lose bits without any of the four changing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.atomic import sha256_of, write_text

if TYPE_CHECKING:
    from os import stat_result
    from pathlib import Path

    from storage.index import ShardRecord


@dataclass(frozen=True)
class CheckedShards:
    """The memory of sound shards: one small file a shard in ``folder``, named by the shard's hash."""

    folder: Path

    def fault(self, path: Path, record: ShardRecord, *, rehash: bool = False) -> str | None:
        """Say what is wrong with a shard, in words that follow its name; None when it is sound.

        Args:
            path: where the shard lies.
            record: what it should be.
            rehash: hash it even if it is remembered as sound.
        """
        try:
            status = path.stat()
        except FileNotFoundError:
            return "is missing"
        if status.st_size != record.size_bytes:
            return f"has {status.st_size} bytes, expected {record.size_bytes}"
        if not rehash and self._remembered(record.sha256) == _stamp(status):
            return None
        if sha256_of(path) != record.sha256:
            return "has another content than was written (its sha256 differs)"
        self.remember(record.sha256, status)
        return None

    def remember(self, sha256: str, status: stat_result) -> None:
        """Note that the file of this status had this hash."""
        with suppress(OSError):  # a full or read-only disk only costs the hashing next time
            write_text(self.folder / sha256, _stamp(status))

    def _remembered(self, sha256: str) -> str | None:
        with suppress(OSError):
            return (self.folder / sha256).read_text(encoding="utf-8")
        return None


def _stamp(status: stat_result) -> str:
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
