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
MISSING = "missing file"


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
    if is_pattern(root):
        for name in expand(root):
            yield from _matched(f"{base_of(root)}/{name}", inside(prefix, names.to_text(name)), left_out, classes)
    elif is_one_file(root):
        yield from _in_order(root, inside(prefix, names.to_text(root.rpartition("/")[2])), left_out, classes)
    elif is_url(root):
        yield from _remote(root.rstrip("/"), prefix, left_out, classes)
    else:
        top = None if follow_links else os.path.realpath(root)
        yield from _local(root.rstrip("/") or "/", prefix, left_out, classes, (top, frozenset()))


def _matched(location: str, path: str, left_out: LeftOut, classes: ClassNames | None) -> Iterator[Folder]:
    """Walk what one name of a pattern stands for: an archive or a folder."""
    if not is_url(location) and os.path.isdir(location):  # noqa: PTH112 - names may hold bytes that are not UTF-8
        yield from _local(location, path, left_out, classes, (None, frozenset()))
        return
    try:
        size, mtime = stamp_of(location)
    except OSError:
        left_out(MISSING, path)
        return
    if is_image(path):
        above, _, name = path.rpartition("/")
        image = Folder(above)
        image.add(name, size, mtime)
        yield image
    elif _is_archive(path, path, left_out):
        yield from _archive(location, path, left_out, classes)


def _local(
    folder: str,
    prefix: str,
    left_out: LeftOut,
    classes: ClassNames | None,
    within: tuple[str | None, frozenset[tuple[int, int]]],
) -> Iterator[Folder]:
    """Walk a local folder; ``within`` is the folder that links may not lead out of, and the folders above."""
    top, above = within
    here = os.stat(folder)  # noqa: PTH116 - names may hold bytes that pathlib would have to convert back
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        left_out("circular link", prefix)
        return
    found = Folder(prefix)
    below: list[str] = []
    archives: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, text = entry.name, names.to_text(entry.name)
                status, problem = (None, "hidden") if is_hidden(name) else _look_at(entry, top)
                if status is None:
                    left_out(problem, inside(prefix, text))
                elif stat.S_ISDIR(status.st_mode):
                    below.append(name)
                elif is_image(name):
                    found.add(text, status.st_size, status.st_mtime_ns)
                elif _is_archive(name, inside(prefix, text), left_out):
                    archives.append(name)
    except PermissionError:
        left_out(UNREADABLE, prefix)
    if found.names or not (below or archives):
        yield found
    for name in sorted(below):
        path = inside(prefix, names.to_text(name))
        yield from _local(f"{folder}/{name}", path, left_out, classes, (top, above | {identity}))
    for name in sorted(archives):
        yield from _archive(f"{folder}/{name}", inside(prefix, names.to_text(name)), left_out, classes)


def _look_at(entry: os.DirEntry[str], top: str | None) -> tuple[os.stat_result | None, str]:
    """Return the status of a regular file or folder, or None and why it is left out."""
    try:
        status = entry.stat()
    except PermissionError:
        raise
    except FileNotFoundError:
        return None, "dangling link"
    except OSError:
        return None, "circular link"
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return None, "no regular file"
    if top is not None and entry.is_symlink() and os.path.commonpath([os.path.realpath(entry.path), top]) != top:
        return None, LEADS_OUT
    return status, ""


def _remote(root: str, start: str, left_out: LeftOut, classes: ClassNames | None) -> Iterator[Folder]:
    filesystem, top = fsspec.core.url_to_fs(root)
    found: dict[str, Folder] = {}
    archives: list[tuple[str, str]] = []
    for path, info in sorted(filesystem.find(top, detail=True).items()):
        relative = path.removeprefix(top).lstrip("/")
        inner, _, name = relative.rpartition("/")
        prefix = inside(start, names.to_text(inner)) if inner else start
        text = inside(prefix, names.to_text(name))
        if any(is_hidden(part) for part in relative.split("/")):
            left_out("hidden", text)
        elif is_image(name):
            found.setdefault(inner, Folder(prefix)).add(names.to_text(name), int(info.get("size") or 0), mtime_ns(info))
        elif _is_archive(name, text, left_out):
            archives.append((f"{root}/{relative}", text))
    yield from found.values()
    for location, text in archives:
        yield from _archive(location, text, left_out, classes)


def _is_archive(name: str, path: str, left_out: LeftOut) -> bool:
    if name.lower().endswith(ARCHIVE_EXTENSIONS):
        return True
    left_out(CLOSED if name.lower().endswith(CLOSED_EXTENSIONS) else kind_of(name), path)
    return False


def _in_order(location: str, path: str, left_out: LeftOut, classes: ClassNames | None) -> list[Folder]:
    return sorted(archive_folders(location, path, left_out, classes), key=lambda folder: folder.prefix)


def _archive(location: str, path: str, left_out: LeftOut, classes: ClassNames | None) -> Iterator[Folder]:
    try:
        yield from _in_order(location, path, left_out, classes)
    except (ArchiveError, OSError) as error:
        size, mtime = 0, 0
        with suppress(OSError):
            size, mtime = stamp_of(location)
        above, _, name = path.rpartition("/")
        failed = Folder(above, error=str(error))
        failed.add(name, size, mtime)
        yield failed
