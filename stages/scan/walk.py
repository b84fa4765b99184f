"""Find the image files below a root in one walk, without opening any image."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import fsspec

from stages.scan.folder import Folder, inside
from stages.scan.packed import archive_folders, is_hidden, is_image, kind_of
from storage import names
from storage.archives import ARCHIVE_EXTENSIONS, CLOSED_EXTENSIONS
from storage.remote import ArchiveError, is_url, mtime_ns, stamp_of
from storage.sources import base_of, expand, is_one_file, is_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.scan.classes import ClassNames
    from stages.scan.packed import LeftOut

UNREADABLE = "folder that may not be read"
LEADS_OUT = "a link that leads out of the folder"
CLOSED = "archive that has to be unpacked first"
MISSING = "missing file(s)"


def walk(
    root: str, left_out: LeftOut, *, prefix: str = "", classes: ClassNames | None = None, follow_links: bool = True
) -> Iterator[Folder]:
    """Yield folders with their image files, and those at the end of a path that hold none.

    Sub-folders and then archives follow the files of a folder, in order of their names; the files come in no order.
    Links in a circle are followed once. An archive that cannot be read is a folder with an ``error``.

    Args:
        root: a folder, one archive, or a pattern of both; local, or a URL of fsspec.
        left_out: told the kind and the path of each entry that is left out.
        prefix: start of the paths of all images.
        classes: names of the classes, to read the labels that archives state; None to read none.
        follow_links: whether links may lead out of a local root.

    Raises:
        DataError: the root is a damaged archive, or a label in an archive is not known.
    """
    there = _Walk(left_out, classes, None if follow_links or is_url(root) else os.path.realpath(root))
    if is_pattern(root):
        for name in expand(root):
            yield from there.matched(f"{base_of(root)}/{name}", inside(prefix, names.to_text(name)))
    elif is_one_file(root):
        yield from there.archive(root, inside(prefix, names.to_text(root.rpartition("/")[2])))
    elif is_url(root):
        yield from there.remote(root.rstrip("/"), prefix)
    else:
        yield from there.local(root.rstrip("/") or "/", prefix)


class _Walk:
    """One walk: whom it tells what is left out, the names of classes, and the folder that links may not lead out of."""

    def __init__(self, left_out: LeftOut, classes: ClassNames | None, top: str | None) -> None:
        self.left_out, self.classes, self.top = left_out, classes, top

    def local(self, folder: str, prefix: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Folder]:
        """Walk a local folder below the folders ``above``, by device and number."""
        here = os.stat(folder)  # noqa: PTH116 - names may hold bytes that pathlib would have to convert back
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            self.left_out("circular link", prefix)
            return
        found = Folder(prefix)
        below: list[str] = []
        archives: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name, path = entry.name, inside(prefix, names.to_text(entry.name))
                    status = "hidden" if is_hidden(name) else self._status(entry)
                    if isinstance(status, str):
                        self.left_out(status, path)
                    elif stat.S_ISDIR(status.st_mode):
                        below.append(name)
                    elif is_image(name):
                        found.add(names.to_text(name), status.st_size, status.st_mtime_ns)
                    elif self._is_archive(name, path):
                        archives.append(name)
        except PermissionError:
            self.left_out(UNREADABLE, prefix)
        if found.names or not (below or archives):
            yield found
        for name in sorted(below):
            yield from self.local(f"{folder}/{name}", inside(prefix, names.to_text(name)), above | {identity})
        for name in sorted(archives):
            yield from self.archive_below(f"{folder}/{name}", inside(prefix, names.to_text(name)))

    def remote(self, root: str, start: str) -> Iterator[Folder]:
        """Walk what a URL lists."""
        filesystem, top = fsspec.core.url_to_fs(root)
        found: dict[str, Folder] = {}
        archives: list[tuple[str, str]] = []
        for path, info in sorted(filesystem.find(top, detail=True).items()):
            relative = path.removeprefix(top).lstrip("/")
            text = inside(start, names.to_text(relative))
            above, _, name = text.rpartition("/")
            if any(is_hidden(part) for part in relative.split("/")):
                self.left_out("hidden", text)
            elif is_image(name):
                found.setdefault(above, Folder(above)).add(name, int(info.get("size") or 0), mtime_ns(info))
            elif self._is_archive(name, text):
                archives.append((f"{root}/{relative}", text))
        yield from found.values()
        for location, text in archives:
            yield from self.archive_below(location, text)

    def matched(self, location: str, path: str) -> Iterator[Folder]:
        """Walk what one name of a pattern stands for: an archive, a folder, or an image."""
        if not is_url(location) and os.path.isdir(location):  # noqa: PTH112 - names may hold bytes that are not UTF-8
            yield from self.local(location, path)
            return
        try:
            size, mtime = stamp_of(location)
        except OSError:
            self.left_out(MISSING, path)
            return
        if is_image(path):
            yield _one_file(path, size, mtime)
        elif self._is_archive(path, path):
            yield from self.archive_below(location, path)

    def archive(self, location: str, path: str) -> list[Folder]:
        """Return the folders of an archive, in order of their names."""
        return sorted(archive_folders(location, path, self.left_out, self.classes), key=lambda folder: folder.prefix)

    def archive_below(self, location: str, path: str) -> Iterator[Folder]:
        """Yield the folders of an archive among other files; one that cannot be read costs no more than itself."""
        try:
            yield from self.archive(location, path)
        except (ArchiveError, OSError) as error:
            size, mtime = 0, 0
            with suppress(OSError):
                size, mtime = stamp_of(location)
            yield _one_file(path, size, mtime, error=str(error))

    def _is_archive(self, name: str, path: str) -> bool:
        if name.lower().endswith(ARCHIVE_EXTENSIONS):
            return True
        self.left_out(CLOSED if name.lower().endswith(CLOSED_EXTENSIONS) else kind_of(name), path)
        return False

    def _status(self, entry: os.DirEntry[str]) -> os.stat_result | str:
        """Return the status of a regular file or folder, or why another entry is left out."""
        try:
            status = entry.stat()
        except PermissionError:
            raise
        except OSError as error:
            return "dangling link" if isinstance(error, FileNotFoundError) else "circular link"
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return "no regular file"
        if self.top and entry.is_symlink() and os.path.commonpath([os.path.realpath(entry.path), self.top]) != self.top:
            return LEADS_OUT
        return status


def _one_file(path: str, size: int, mtime: int, error: str | None = None) -> Folder:
    above, _, name = path.rpartition("/")
    folder = Folder(above, error=error)
    folder.add(name, size, mtime)
    return folder
