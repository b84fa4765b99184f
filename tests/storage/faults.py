"""Real faults: a disk that is full, a folder that may not be written to, processes that are killed."""

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder, size):
    """Mount a file system of ``size`` in memory; where that is not allowed, the test cannot run and says so."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        # lazily: what a caught error still holds open is let go when it is collected
        subprocess.run(["umount", "-l", folder], check=True)


def touched(path):
    """Give a file the time of a write a second later: two in one tick of a file system's clock have the same."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def _overwritten(content):
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 64]) + content[middle + 64 :]


DAMAGE = {
    "truncated": lambda content: content[:-100],
    "overwritten": _overwritten,
    "emptied": lambda content: b"",
    "one bit": lambda content: content[:3000] + bytes([content[3000] ^ 1]) + content[3001:],
}


def harm(path, damage, *, in_place=False):
    """Damage a file as a disk, a program or a person would; its other hard links too where that is done in place.

    Args:
        path: the file.
        damage: of ``DAMAGE``; or "deleted", or "replaced", by the first shard's file of the same kind.
        in_place: keep the inode.
    """
    content = path.read_bytes()
    if not in_place:
        path.unlink()
    if damage == "deleted":
        return
    first = path.with_name(f"shard-00000{path.suffix}")
    path.write_bytes(first.read_bytes() if damage == "replaced" else DAMAGE[damage](content))
    touched(path)
