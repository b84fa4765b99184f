"""Locks of folders, held by whoever writes; the kernel frees the lock of a process that dies."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from storage.atomic import explained
from storage.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOCK_NAME = ".lock"


@contextmanager
def locked(directory: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, against other writers.

    Args:
        directory: the folder.
        notify: called with one line when another process holds the lock and this one has to wait.

    Raises:
        ResourceError: the file system has no locks, or the folder may not be written to.
    """
    path = directory / LOCK_NAME
    while True:
        with explained(path):
            directory.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        with file:
            if not try_lock(file, path):
                file.seek(0)
                notify(f"waiting for process {file.read().strip()}, which extracts into {directory}")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _still_there(file, path):  # the folder was deleted while this process waited
                continue
            with explained(path):
                os.truncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())  # unbuffered, or closing would write it again
            yield
            return


def try_lock(file: IO[str], path: Path, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file; return False where another process holds the lock.

    Args:
        file: the open file.
        path: its path, for the message.
        how: LOCK_EX or LOCK_SH.

    Raises:
        ResourceError: the file system has no locks.
    """
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be locked: its file system has no file locks ({os.strerror(error.errno or errno.ENOLCK)}); "
            "set LTDPIPE_STORE to a folder on one that has (on Lustre, one mounted with -o flock)"
        ) from error
    return True


def lock_holder(directory: Path) -> str | None:
    """Return the number of the process that holds a folder; None where nobody does or the file system has no locks."""
    path = directory / LOCK_NAME
    with suppress(FileNotFoundError, ResourceError), path.open() as file:
        return None if try_lock(file, path, fcntl.LOCK_SH) else file.read().strip()
    return None


def _still_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
