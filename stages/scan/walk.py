"""Find the image files below a folder in one walk, without opening any, and count what is left out and why."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jfif", "jpe", "png", "webp", "bmp", "tif", "tiff", "gif", "avif", "jp2", "heic", "heif"}
)


@dataclass(frozen=True)
class FoundFile:
    """One image file: its path parts below the root, size in bytes, modification time in ns."""

    parts: tuple[str, ...]
    size_bytes: int
    mtime_ns: int


@dataclass
class Walk:
    """A walk below ``root``; iterate over it, then read ``skipped``: kind of entry -> how many were left out."""

    root: Path
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[FoundFile]:
        """Yield image files, folder by folder in name order; links to folders are followed, circles are not."""
        yield from self._folder(os.fspath(self.root), (), frozenset())

    def _folder(self, folder: str, parts: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[FoundFile]:
        status = os.stat(folder)  # noqa: PTH116 - names may hold bytes that pathlib would have to convert back
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            self.skipped["circular link"] += 1
            return
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                yield from self._entry(entry, (*parts, entry.name), above | {identity})

    def _entry(
        self, entry: os.DirEntry[str], parts: tuple[str, ...], above: frozenset[tuple[int, int]]
    ) -> Iterator[FoundFile]:
        if entry.name.startswith("."):
            self.skipped["hidden"] += 1
            return
        try:
            status = entry.stat()
        except FileNotFoundError:
            self.skipped["dangling link"] += 1
            return
        except OSError:
            self.skipped["circular link"] += 1
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._folder(entry.path, parts, above)
            return
        extension = os.path.splitext(entry.name)[1].removeprefix(".").lower()  # noqa: PTH122 - as above
        if not stat.S_ISREG(status.st_mode):
            self.skipped["no regular file"] += 1
        elif extension not in IMAGE_EXTENSIONS:
            self.skipped[f".{extension}" if extension else "no extension"] += 1
        else:
            yield FoundFile(parts, status.st_size, status.st_mtime_ns)
