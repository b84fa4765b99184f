"""Find the image files below a root in one walk, without opening any image, and count what is left out and why."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fsspec

from stages.scan.archived import archive_folders
from stages.scan.found import Folder, folders_of, is_image, kind_of
from storage import names
from storage.archives import ARCHIVE_EXTENSIONS, CLOSED_EXTENSIONS, is_url, mtime_ns
from storage.sources import REALS, is_one_file

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Walk:
    """A walk below ``root``; iterate over it, then read ``skipped``: kind of entry -> how many were left out.

    Attributes:
        root: a folder, or one archive; local, or a URL of fsspec.
        is_shared: whether this is the second root of a corpus, that of the shared real images.
        skipped: what was left out so far.
    """

    root: str
    is_shared: bool = False
    skipped: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def is_folder(root: str) -> bool:
        """Tell whether a local root is a folder."""
        return os.path.isdir(root)  # noqa: PTH112 - as below

    def __iter__(self) -> Iterator[Folder]:
        """Yield folders with their image files; links to folders are followed, circles are not."""
        start = (REALS,) if self.is_shared else ()
        if is_one_file(self.root):
            yield from self._archive(self.root, (*start, names.to_text(self.root.rsplit("/", 1)[-1])))
        elif is_url(self.root):
            yield from self._remote(start)
        else:
            yield from self._local(self.root, start, frozenset())

    def _local(self, folder: str, parts: tuple[str, ...], above: frozenset[tuple[int, int]]) -> Iterator[Folder]:
        here = os.stat(folder)  # noqa: PTH116 - names may hold bytes that pathlib would have to convert back
        identity = (here.st_dev, here.st_ino)
        if identity in above:
            self.skipped["circular link"] += 1
            return
        found = self._folder(parts)
        below: list[str] = []
        archives: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                status = self._look_at(entry)
                if status is None:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    below.append(name)
                elif is_image(name):
                    found.add(names.to_text(name), status.st_size, status.st_mtime_ns)
                else:
                    self._other(name, archives)
        if found.names:
            yield found
        for name in sorted(below):
            yield from self._local(f"{folder}/{name}", (*parts, names.to_text(name)), above | {identity})
        yield from self._archives(folder, parts, archives, below)

    def _look_at(self, entry: os.DirEntry[str]) -> os.stat_result | None:
        """Return the status of a regular file or folder that is to be looked at, or count it as left out."""
        if entry.name.startswith("."):
            self.skipped["hidden"] += 1
            return None
        try:
            status = entry.stat()
        except FileNotFoundError:
            self.skipped["dangling link"] += 1
            return None
        except PermissionError:
            raise
        except OSError:
            self.skipped["circular link"] += 1
            return None
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            self.skipped["no regular file"] += 1
            return None
        return status

    def _remote(self, start: tuple[str, ...]) -> Iterator[Folder]:
        filesystem, root = fsspec.core.url_to_fs(self.root.rstrip("/"))
        found: dict[str, Folder] = {}
        archives: dict[str, list[str]] = defaultdict(list)
        for path, info in sorted(filesystem.find(root, detail=True).items()):
            relative = path.removeprefix(root).lstrip("/")
            place, _, name = relative.rpartition("/")
            if any(part.startswith(".") for part in relative.split("/")):
                self.skipped["hidden"] += 1
            elif is_image(name):
                parts = (*start, *(names.to_text(part) for part in place.split("/") if part))
                found.setdefault(place, self._folder(parts)).add(
                    names.to_text(name), int(info.get("size") or 0), mtime_ns(info)
                )
            else:
                self._other(name, archives[place])
        yield from found.values()
        for place, inside in archives.items():
            parts = (*start, *(names.to_text(part) for part in place.split("/") if part))
            below = {other.removeprefix(f"{place}/").split("/")[0] for other in found if other != place}
            location = f"{self.root.rstrip('/')}/{place}".rstrip("/")
            yield from self._archives(location, parts, inside, sorted(below))

    def _other(self, name: str, archives: list[str]) -> None:
        """Keep an archive for later, or count a file that is no image as left out."""
        lower = name.lower()
        if lower.endswith(ARCHIVE_EXTENSIONS):
            archives.append(name)
        elif lower.endswith(CLOSED_EXTENSIONS):
            self.skipped["archive that has to be unpacked first"] += 1
        else:
            self.skipped[kind_of(name)] += 1

    def _archives(self, folder: str, parts: tuple[str, ...], found: list[str], below: list[str]) -> Iterator[Folder]:
        for name in sorted(found):
            if name.rpartition(".")[0] in below:  # otherwise every image would be there twice
                self.skipped["archive beside its unpacked folder"] += 1
            else:
                yield from self._archive(f"{folder}/{name}", (*parts, names.to_text(name)))

    def _archive(self, location: str, parts: tuple[str, ...]) -> Iterator[Folder]:
        yield from archive_folders(location, parts, self.skipped, is_shared=self.is_shared)

    def _folder(self, parts: tuple[str, ...]) -> Folder:
        seen = parts[1:] if self.is_shared else parts
        return Folder("/".join(parts), folders_of(seen), is_shared=self.is_shared)
