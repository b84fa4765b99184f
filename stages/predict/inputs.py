"""From the paths a user gives to images, one after the other: files, folders, archives, and a list on standard input.

Only what was named is read: a link inside a folder that leads out of it is a row with a reason, unless links are
followed. The names of one folder, or one archive, are held at a time, for their order.
"""

from __future__ import annotations

import os
import re
from typing import IO, TYPE_CHECKING, NamedTuple

from stages.scan.packed import is_image
from stages.scan.walk import LEADS_OUT, UNREADABLE, walk
from storage import names
from storage.archives import ARCHIVE_EXTENSIONS
from storage.errors import DataError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

STDIN = "-"
MAX_LINE_BYTES = 4096  # what POSIX systems take for a path

# What the walk calls an image that is none -> what the row says.
_PROBLEMS = {
    "dangling link": "no such file or directory",
    "circular link": "too many levels of symbolic links",
    "no regular file": "no regular file",
    UNREADABLE: "permission denied",
    LEADS_OUT: f"{LEADS_OUT} (--follow-links reads it)",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Item(NamedTuple):
    """One image: its name in the results (:func:`spelled`), and why it is not to be read, None where it is."""

    name: str
    error: str | None = None


def find_images(
    paths: Sequence[str], stdin: IO[bytes], left_out: Counter[str], *, follow_links: bool = False
) -> Iterator[Item]:
    """Yield the images of all paths in order; folders and archives in order of their names.

    Args:
        paths: files, folders, archives (.zip, .tar, .parquet), or "-" for paths of files on ``stdin``, one per line.
        stdin: where "-" reads.
        left_out: kind -> entries of folders and archives that are none of the images; added to.
        follow_links: whether links inside a folder may lead out of it.

    Raises:
        DataError: a path does not exist, an archive is damaged, a folder has no image, or a line of a list is no path.
    """
    check_paths(paths)
    for path in paths:
        if path == STDIN:
            yield from _listed(stdin)
        elif os.path.isdir(path) or (path.lower().endswith(ARCHIVE_EXTENSIONS) and os.path.isfile(path)):  # noqa: PTH112, PTH113
            item = None
            for item in _walked(path, left_out, follow_links=follow_links):
                yield item
            if item is None:
                raise DataError(
                    f"no image file in {spelled(path)}; expected files with an extension such as .jpg or .png"
                )
        else:
            yield Item(spelled(path))


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
    return _one_line(names.to_text(path))


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _listed(stdin: IO[bytes]) -> Iterator[Item]:
    for number, line in enumerate(iter(lambda: stdin.readline(MAX_LINE_BYTES + 2), b""), 1):
        path = line.rstrip(b"\r\n")
        if len(path) > MAX_LINE_BYTES or b"\0" in path:
            what = f"is longer than {MAX_LINE_BYTES} bytes" if len(path) > MAX_LINE_BYTES else "holds a zero byte"
            raise DataError(f"line {number} of the list on standard input {what}: expected one path a line")
        if path:
            yield Item(spelled(os.fsdecode(path)))


def _walked(path: str, left_out: Counter[str], *, follow_links: bool) -> Iterator[Item]:
    """Yield the images of a folder or an archive, and a row for each that cannot be read."""
    refused: list[Item] = []
    prefix = names.to_text(os.path.dirname(path) if os.path.isfile(path) else path.rstrip("/") or "/")  # noqa: PTH113, PTH120

    def note(kind: str, entry: str) -> None:
        what, _, archive = kind.partition(" in ")  # a link in x.tar
        if kind in {UNREADABLE, LEADS_OUT} or (is_image(entry) and kind in _PROBLEMS):
            refused.append(Item(_one_line(entry), f"unreadable: {_PROBLEMS[kind]}"))
        elif is_image(entry) and archive and entry.startswith(f"{archive}!/"):
            refused.append(Item(_one_line(entry), f"unreadable: {what} in the archive"))
        else:
            left_out[kind] += 1

    for folder in walk(path, note, prefix=prefix, follow_links=follow_links):
        if not len(folder) and is_image(folder.prefix):
            refused.append(Item(_one_line(folder.prefix), "unreadable: no regular file"))
        error = None if folder.error is None else f"unreadable: {folder.error}"
        yield from sorted([*refused, *(Item(_one_line(folder.path(name)), error) for name in folder.names)])
        refused.clear()
    yield from refused
