"""Where the bytes of a corpus's images come from: a manifest's ``path`` -> the encoded image.

A ``path`` is relative to the corpus's root: ``progan/0_real/1.png``, ``images/sdxl.zip!/sdxl/1.png`` inside an archive,
``@reals/val2017/1.jpg`` below the second root that holds the real images several test sets share. The root is a local
folder or a URL that fsspec knows (``s3://``, ``gs://``, ``https://``, where its extra is installed). Where it is one
file, an archive or a list of images, paths are relative to the folder of that file; where it is a pattern such as
``shards/{000..012}.tar``, to the folder above its first wildcard.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from dataclasses import dataclass
from functools import cached_property

import fsspec

from storage import names
from storage.archives import ARCHIVE_EXTENSIONS, check_size, member_size, read_member
from storage.errors import DataError
from storage.names import REALS
from storage.remote import is_url, opened, stamp_of

MEMBER = re.compile(r"(?<=\.zip)!/|(?<=\.tar)!/|(?<=\.parquet)!/", re.IGNORECASE)
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


@dataclass(frozen=True)
class Sources:
    """The roots of one corpus; small, and safe to hand to threads and to other processes.

    Attributes:
        root: folder, archive, list file or pattern, local or URL.
        reals: the second root, for the shared real images; None where there is none.
    """

    root: str
    reals: str | None = None

    @classmethod
    def of(cls, root: str | os.PathLike[str], reals: str | os.PathLike[str] | None = None) -> Sources:
        """Make sources from paths or URLs."""
        return cls(os.fspath(root), None if reals is None else os.fspath(reals))

    @property
    def is_remote(self) -> bool:
        """Whether a root is a URL, where asking for the size of every file is slow."""
        return is_url(self.root) or (self.reals is not None and is_url(self.reals))

    def read(self, path: str) -> bytes:
        """Return the encoded image.

        Raises:
            OSError: the file is not there or cannot be read.
            DataError: its archive is damaged or has no such member, it is an archive whose images could not be listed,
                it is too large for an image, or the path needs a second root and none is set.
        """
        location, member = self._resolve(path)
        if member is not None:
            return read_member(location, member)
        if location.lower().endswith(ARCHIVE_EXTENSIONS):
            with opened(location):
                member_size(location, "00000000")  # says what is wrong with it
            raise DataError(f"archive {location} could not be read when it was scanned; scan its corpus again")
        if is_url(location):
            filesystem, remote = fsspec.core.url_to_fs(location)
            content: bytes = filesystem.cat_file(remote)
            return content
        status = os.stat(location)  # noqa: PTH116 - names may hold bytes that are not UTF-8
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no regular file", location)  # reading a pipe would wait for ever
        check_size(status.st_size, location)
        with open(location, "rb") as file:  # noqa: PTH123 - as above
            return file.read()

    def size(self, path: str) -> int | None:
        """Return the size that a manifest states for ``path``, or None where nothing is there."""
        stamp = self.stamp(path)
        return None if stamp is None else stamp[0]

    def stamp(self, path: str) -> tuple[int, int] | None:
        """Return (size in bytes, modification time in ns) as a manifest states them, or None.

        A member of an archive has the archive's time, a row of a Parquet file also the file's size.
        """
        location, member = self._resolve(path)
        try:
            size, mtime = stamp_of(location, again=member is None)
        except OSError:
            return None
        if member is None:
            return size, mtime
        inside = member_size(location, member)
        return None if inside is None else (inside, mtime)

    def where(self, path: str) -> str:
        """Return the place of ``path`` in full, for messages."""
        location, member = self._resolve(path)
        return location if member is None else f"{location}!/{member}"

    def _resolve(self, path: str) -> tuple[str, str | None]:
        base = self._base
        if path.startswith(f"{REALS}/"):
            if self._reals_base is None:
                raise DataError(
                    f"{path} lies below the second root of its corpus, and none is set: name the folder of the shared "
                    "real images in `corpora.<name>.reals`, or with --reals"
                )
            base, path = self._reals_base, path.removeprefix(f"{REALS}/")
        file, *member = MEMBER.split(names.to_path(path), maxsplit=1)
        return f"{base}/{file}", member[0] if member else None

    @cached_property
    def _base(self) -> str:
        return base_of(self.root)

    @cached_property
    def _reals_base(self) -> str | None:
        return None if self.reals is None else base_of(self.reals)


def is_pattern(root: str) -> bool:
    """Tell whether a root stands for several files or folders; what exists under this very name is none."""
    if is_url(root):
        return "*" in root or _BRACES.search(root) is not None
    return (glob.has_magic(root) or _BRACES.search(root) is not None) and not os.path.lexists(root)


def expand(root: str) -> list[str]:
    """Return what a pattern stands for, relative to :func:`base_of` it: names with braces as stated, others as found.

    ``{000..012}`` stands for all numbers from one to the other, ``{train,val}`` for each of the words; ``*`` and, where
    local, ``?`` and ``[...]`` for what matches.
    """
    spelled = [root]
    while any(map(_BRACES.search, spelled)):
        spelled = [other for one in spelled for other in _without_braces(one)]
    base = base_of(root)
    found: list[str] = []
    for each in spelled:
        if is_url(each) and "*" in each:
            filesystem, path = fsspec.core.url_to_fs(each)
            top = fsspec.core.url_to_fs(base)[1]
            found += (match.removeprefix(top).lstrip("/") for match in sorted(filesystem.glob(path)))
        elif is_pattern(each):
            found += sorted(glob.glob(each.removeprefix(f"{base}/"), root_dir=base))  # noqa: PTH207 - names may hold bytes
        else:
            found.append(each.removeprefix(f"{base}/"))
    return list(dict.fromkeys(found))


def exists(root: str) -> bool:
    """Tell whether anything is there that a local root stands for."""
    names_below = (f"{base_of(root)}/{name}" for name in expand(root)) if is_pattern(root) else [root]
    return any(map(os.path.exists, names_below))


def _without_braces(pattern: str) -> list[str]:
    """Return the spellings that the first braces of a pattern stand for."""
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    first, last, words = braces.groups()
    values = words.split(",") if words else [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    return [f"{pattern[: braces.start()]}{value}{pattern[braces.end() :]}" for value in values]


def is_one_file(root: str) -> bool:
    """Tell whether a root is a file, such as an archive or a list of images, and no folder."""
    if is_url(root):
        return re.search(r"\.(zip|tar|parquet|csv|tsv)$", root, re.IGNORECASE) is not None
    return os.path.isfile(root)  # noqa: PTH113 - names may hold bytes that are not UTF-8


def base_of(root: str) -> str:
    """Return what paths are relative to: the root itself, or the folder of a root that is one file or a pattern."""
    if is_pattern(root):
        root = re.split(r"[*?[{]", root, maxsplit=1)[0]
    elif not is_one_file(root):
        return root.rstrip("/") or "/"
    return root.rpartition("/")[0] or ("/" if root.startswith("/") else ".")
