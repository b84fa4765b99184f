"""Files that are either complete or absent, whatever kills the process that writes them, and locks of folders."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING

from storage.errors import DataError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PARTIAL_SUFFIX = ".partial"
LOCK_NAME = ".lock"

# What file systems without an fsync of folders answer (FUSE, SMB, some of NFS).
_CANNOT = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EPERM, errno.EACCES}

_REASONS = {
    errno.ENOSPC: "the disk is full; free some room and run the same command again, finished work is kept",
    errno.EDQUOT: "the disk quota is used up; free some room and run the same command again, finished work is kept",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "operation not permitted; choose a folder you may write to",
    errno.ENOTDIR: "a file lies where a folder of that path has to be; choose another path",
    errno.EISDIR: "a folder lies there; choose the path of a file",
    errno.EEXIST: "a file lies there; choose the path of a folder",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n 4096`",
    **dict.fromkeys(
        (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP),
        "its file system refuses what a safe write needs (fsync, rename); choose a folder on another one",
    ),
    errno.EFBIG: "the file is larger than this file system or `ulimit -f` allows",
}


@contextmanager
def atomic_path(final: Path, *, sync_folder: bool = True) -> Iterator[Path]:
    """Give a private path to write to; when the block ends well it becomes ``final``, on disk and complete.

    The partial file lies beside ``final`` under a unique name, so that two writers never share one; the last to
    finish wins. When the block raises, it is removed and ``final`` stays as it was.

    Args:
        final: the file to write.
        sync_folder: False where another file follows in the same folder at once: its fsync then covers both names.

    Raises:
        ResourceError: the disk is full, read-only, or may not be written to; the message names ``final``.
    """
    partial = final.with_name(f"{final.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    with explained(final):
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            fsync(partial)
            partial.replace(final)
            if sync_folder:
                fsync(final.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write ``path`` into a ResourceError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if error.errno == errno.ENOENT and str(error.filename).startswith(str(path.parent)):
            reason = "no file can be made there; choose another folder"
        if reason is None:
            raise
        raise ResourceError(f"cannot write {path}: {reason}") from error


@contextmanager
def all_or_none() -> Iterator[Callable[[Path], Path]]:
    """Give :func:`atomic_path` for several files that belong together: none is replaced before all are written."""
    with ExitStack() as files:
        yield lambda final: files.enter_context(atomic_path(final))


def write_text(final: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``final`` atomically, with newlines as given."""
    write_texts({final: text})


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write files of UTF-8 text, all or none of them, with newlines as given."""
    with all_or_none() as partial:
        for final, text in texts.items():
            partial(final).write_text(text, encoding="utf-8", newline="")


def fsync(path: Path) -> None:
    """Force a file's or folder's bytes to the disk; a folder's only where its file system can do it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file's bytes.

    Raises:
        DataError: the file does not exist, or is a folder.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, expected a file") from error


def remove(*paths: Path) -> None:
    """Delete files that may not be there."""
    for path in paths:
        with explained(path):
            path.unlink(missing_ok=True)


def link(source: Path, target: Path) -> bool:
    """Make ``target`` the same file as ``source``, or a copy where no link is possible; return whether it was copied.

    Raises:
        ResourceError: the target cannot be written to.
    """
    if target.exists() and source.samefile(target):
        return False
    with explained(target):
        remove(target)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one that refuses links, each in its own words: a copy says the rest
            with atomic_path(target) as partial:
                shutil.copy2(source, partial)
            return True
    return False


@contextmanager
def locked(directory: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder, made where it is missing, against other writers; the kernel frees it when the process dies.

    ``notify`` is called with one line when another process holds it and this one has to wait.

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
            still_there = False
            with suppress(FileNotFoundError):  # the folder may have been deleted while this process waited
                still_there = os.path.samestat(os.fstat(file.fileno()), path.stat())
            if not still_there:
                continue
            with explained(path):
                os.truncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())  # unbuffered, or closing would write it again
            yield
            return


def try_lock(file: IO[str] | int, path: Path, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file with LOCK_EX or LOCK_SH; return False where another process holds the lock.

    Raises:
        ResourceError: the file system of ``path`` has no locks.
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
