"""Is a shard what its sidecar says? Each is hashed once, and again only after it was touched.

A shard that was hashed and found sound is remembered by inode, size and modification time in the user's cache folder;
one that was copied, restored, overwritten or replaced is hashed again. The device is left out: its number differs
between the nodes that mount one disk. ``ltdpipe verify`` hashes whatever is remembered, since a disk may lose bits
without any of the three changing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from storage.atomic import sha256_of

if TYPE_CHECKING:
    from storage.index import ShardRecord

Check = Literal["size", "remembered", "hash"]


def shard_fault(path: Path, record: ShardRecord, check: Check = "remembered") -> str | None:
    """Say what is wrong with a shard, in words that follow its name; None when it is sound.

    Args:
        path: where the shard lies.
        record: what it should be.
        check: "size" looks at the size alone, "remembered" hashes what is not known to be sound, "hash" hashes always.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return "is missing"
    if status.st_size != record.size_bytes:
        return f"has {status.st_size} bytes, expected {record.size_bytes}"
    if check == "size" or (check == "remembered" and _is_remembered(record.sha256, status)):
        return None
    if sha256_of(path) != record.sha256:
        return "has another content than was written (its sha256 differs)"
    remember_sound(record.sha256, status)
    return None


def remember_sound(sha256: str, status: os.stat_result) -> None:
    """Note that the file of this status has this hash."""
    with suppress(OSError, RuntimeError):  # a full disk, or no home folder, only costs the hashing next time
        note = _note(sha256, status)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _is_remembered(sha256: str, status: os.stat_result) -> bool:
    with suppress(OSError, RuntimeError):
        return _note(sha256, status).exists()
    return False


def _note(sha256: str, status: os.stat_result) -> Path:
    """Return the empty file whose presence says that the file of this status has this hash; one for each copy."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "ltdpipe", "checked", f"{sha256}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}")
