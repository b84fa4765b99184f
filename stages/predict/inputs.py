"""From the paths a user gives to images, one after the other: files, folders, archives, and a list on standard input.

Only what was named is read: a link inside a folder that leads out of it is a row with a reason, unless links are
followed. The names of one folder, or one archive, are held at a time, for their order.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from stages.scan.found import archive_folders, is_image
from storage import names
from storage.archives import ARCHIVE_EXTENSIONS, MOST_IMAGE_BYTES
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STDIN = "-"
MOST_LINE_BYTES = 4096  # what POSIX systems take for a path

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Item:
    """One image to look at.

    Attributes:
        name: its name in the results, as text: the path as given, or below the folder or archive that was given.
        error: why it is not to be read; None for all others.
    """

    name: str
    error: str | None = None


def find_images(paths: Sequence[str], stdin: IO[bytes], *, follow_links: bool = False) -> Iterator[Item]:
    """Yield the images of all paths in order; folders and archives in order of their names.

    Args:
        paths: files, folders, archives (.zip, .tar, .parquet), or "-" for paths of files on ``stdin``, one a line.
        stdin: where "-" reads.
        follow_links: whether links inside a folder may lead out of it.

    Raises:
        DataError: a path does not exist, an archive is damaged, a folder has no image, or a line of a list is no path.
    """
    check_paths(paths)
    for path in paths:
        if path == STDIN:
            yield from _listed(stdin)
        elif os.path.isdir(path):  # noqa: PTH112 - names may hold bytes that are not UTF-8
            root = path.rstrip("/") or "/"
            yield from _some(path, _below(root, os.path.realpath(root), frozenset(), follow_links=follow_links))
        elif _is_archive(path):
            yield from _some(path, _archive(path))
        else:
            yield image_file(path)


def check_paths(paths: Sequence[str]) -> None:
    """Check that all paths are there, before hours go into the first of them.

    Raises:
        DataError: one does not exist.
    """
    for path in paths:
        if path != STDIN and not os.path.lexists(path):
            raise DataError(f"{spelled(path)} does not exist; expected an image, a folder, an archive or -")


def spelled(path: str) -> str:
    r"""Return a path as text without control characters, so that it fits one line; ``names.to_path`` undoes it."""
    return _CONTROL.sub(_hexed, names.to_text(path))


def _hexed(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def _listed(stdin: IO[bytes]) -> Iterator[Item]:
    number = 0
    while line := stdin.readline(MOST_LINE_BYTES + 2):
        number += 1
        path = line.rstrip(b"\r\n")
        if len(path) > MOST_LINE_BYTES or b"\0" in path:
            what = f"is longer than {MOST_LINE_BYTES} bytes" if len(path) > MOST_LINE_BYTES else "holds a zero byte"
            raise DataError(f"line {number} of the list on standard input {what}: expected one path a line")
        if path:
            yield image_file(os.fsdecode(path))


def _some(path: str, items: Iterator[Item]) -> Iterator[Item]:
    item = None
    for item in items:
        yield item
    if item is None:
        raise DataError(f"no image file in {spelled(path)}; expected files with an extension such as .jpg or .png")


def _below(folder: str, top: str, above: frozenset[tuple[int, int]], *, follow_links: bool) -> Iterator[Item]:
    here = os.stat(folder)  # noqa: PTH116
    identity = (here.st_dev, here.st_ino)
    if identity in above:  # a link in a circle: these images were found above
        return
    try:
        found = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        yield Item(spelled(folder), f"unreadable: {(error.strerror or 'no such folder').lower()}")
        return
    below, archives = [], []
    for name in found:
        path = f"{folder}/{name}"
        if name.startswith("."):
            continue
        leads_out = os.path.islink(path) and not follow_links and not _within(path, top)  # noqa: PTH114
        if os.path.isdir(path) and not is_image(name):  # noqa: PTH112
            below.append((path, leads_out))
        elif is_image(name):
            yield _led_out(path) if leads_out else image_file(path)
        elif _is_archive(path):
            archives.append((path, leads_out))
    for path, leads_out in below:
        if leads_out:
            yield _led_out(path)
        else:
            yield from _below(path, top, above | {identity}, follow_links=follow_links)
    for path, leads_out in archives:
        try:
            yield from (_led_out(path),) if leads_out else _archive(path)
        except (DataError, OSError) as error:
            # one of many things in the folder; where it is all that was named, it ends the run
            yield Item(spelled(path), f"unreadable: {error}")


def _within(path: str, top: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), top]) == top


def _led_out(path: str) -> Item:
    return Item(spelled(path), "unreadable: a link that leads out of the folder (--follow-links reads it)")


def image_file(path: str) -> Item:
    """Return one image file, with the reason why it is not to be read where it is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        return Item(spelled(path), f"unreadable: {(error.strerror or str(error)).lower()}")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device would wait, or never end
        return Item(spelled(path), "unreadable: no regular file")
    return Item(spelled(path), _too_large(status.st_size))


def _archive(path: str) -> Iterator[Item]:
    skipped: Counter[str] = Counter()
    place = names.to_text(path)
    found = archive_folders(path, place, skipped, read_labels=False)
    members = [
        (folder.path(name), size) for folder in found for name, size in zip(folder.names, folder.sizes, strict=True)
    ]
    for kind, count in sorted(skipped.items()):
        if kind.endswith(f" in {place}"):  # links and the like, that may have been meant to be images
            yield Item(spelled(path), f"unreadable: {count} {kind.removesuffix(f' in {place}')} left out")
    for name, size in sorted((_CONTROL.sub(_hexed, name), size) for name, size in members):
        # a Parquet row has the size of its file
        yield Item(name, None if ".parquet!/" in name.lower() else _too_large(size))


def _too_large(size: int) -> str | None:
    return f"too large: {size} bytes, at most {MOST_IMAGE_BYTES} are read" if size > MOST_IMAGE_BYTES else None


def _is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_EXTENSIONS) and os.path.isfile(path)  # noqa: PTH113
