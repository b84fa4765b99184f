"""Find the image files below a root in one walk, without opening any image, and count what is left out and why."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import fsspec

from stages.scan.found import Folder, archive_folders, inside, is_hidden, is_image, kind_of
from storage import names
from storage.archives import ARCHIVE_EXTENSIONS, CLOSED_EXTENSIONS, ArchiveError, is_url, mtime_ns, stamp_of
from storage.sources import REALS, is_one_file

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator


def walk(root: str, skipped: Counter[str], *, is_shared: bool = False, read_labels: bool = True) -> Iterator[Folder]:
    """Yield folders with their image files, and those at the end of a path that hold none.

    Links to folders are followed, circles are not. An archive that cannot be read is a folder with an ``error``.

    Args:
        root: a folder, or one archive; local, or a URL of fsspec.
        skipped: kind of entry -> how many were left out; added to.
        is_shared: whether this is the second root of a corpus, that of the shared real images.
        read_labels: read the labels that archives state.

    Raises:
        DataError: the root is a damaged archive, or a label in an archive is not known.
        PermissionError: a folder may not be read.
    """
    place = REALS if is_shared else ""
    archives: list[tuple[str, str]] = []
    if is_one_file(root):
        name = names.to_text(root.rpartition("/")[2])
        yield from archive_folders(root, inside(place, name), skipped, read_labels=read_labels)
    elif is_url(root):
        yield from _remote(root.rstrip("/"), place, skipped, archives)
    else:
        yield from _local(root, place, skipped, archives, frozenset())
    for location, name in sorted(archives):
        try:
            yield from list(archive_folders(location, name, skipped, read_labels=read_labels))
        except (ArchiveError, OSError) as error:
            size, mtime = 0, 0
            with suppress(OSError):
                size, mtime = stamp_of(location)
            failed = Folder(name.rpartition("/")[0], error=str(error))
            failed.add(name.rpartition("/")[2], size, mtime)
            yield failed


def _local(
    folder: str,
    place: str,
    skipped: Counter[str],
    archives: list[tuple[str, str]],
    above: frozenset[tuple[int, int]],
) -> Iterator[Folder]:
    here = os.stat(folder)  # noqa: PTH116 - names may hold bytes that pathlib would have to convert back
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        skipped["circular link"] += 1
        return
    found = Folder(place)
    below: list[str] = []
    before = len(archives)
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            status = _look_at(entry, skipped)
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                below.append(name)
            elif is_image(name):
                found.add(names.to_text(name), status.st_size, status.st_mtime_ns)
            else:
                _other(f"{folder}/{name}", inside(place, names.to_text(name)), archives, skipped)
    if found.names or not (below or len(archives) > before):
        yield found
    for name in sorted(below):
        yield from _local(f"{folder}/{name}", inside(place, names.to_text(name)), skipped, archives, above | {identity})


def _look_at(entry: os.DirEntry[str], skipped: Counter[str]) -> os.stat_result | None:
    """Return the status of a regular file or folder that is to be looked at, or count it as left out."""
    if is_hidden(entry.name):
        skipped["hidden"] += 1
        return None
    try:
        status = entry.stat()
    except FileNotFoundError:
        skipped["dangling link"] += 1
        return None
    except PermissionError:
        raise
    except OSError:
        skipped["circular link"] += 1
        return None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        skipped["no regular file"] += 1
        return None
    return status


def _remote(root: str, start: str, skipped: Counter[str], archives: list[tuple[str, str]]) -> Iterator[Folder]:
    filesystem, top = fsspec.core.url_to_fs(root)
    found: dict[str, Folder] = {}
    for path, info in sorted(filesystem.find(top, detail=True).items()):
        relative = path.removeprefix(top).lstrip("/")
        inner, _, name = relative.rpartition("/")
        place = inside(start, names.to_text(inner)) if inner else start
        if any(is_hidden(part) for part in relative.split("/")):
            skipped["hidden"] += 1
        elif is_image(name):
            folder = found.setdefault(inner, Folder(place))
            folder.add(names.to_text(name), int(info.get("size") or 0), mtime_ns(info))
        else:
            _other(f"{root}/{relative}", inside(place, names.to_text(name)), archives, skipped)
    yield from found.values()


def _other(location: str, place: str, archives: list[tuple[str, str]], skipped: Counter[str]) -> None:
    """Keep an archive for later, or count a file that is no image as left out."""
    name = location.rpartition("/")[2]
    if name.lower().endswith(ARCHIVE_EXTENSIONS):
        archives.append((location, place))
    elif name.lower().endswith(CLOSED_EXTENSIONS):
        skipped["archive that has to be unpacked first"] += 1
    else:
        skipped[kind_of(name)] += 1
