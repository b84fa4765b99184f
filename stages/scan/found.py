"""What a walk finds: the image files of one folder at a time, which a layout labels together."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jfif", "jpe", "png", "webp", "bmp", "tif", "tiff", "gif", "avif", "jp2", "heic", "heif"}
)

_ARCHIVE = re.compile(r"(?P<stem>.*)\.(?P<kind>zip|tar|parquet)!", re.IGNORECASE)
_NUMBERED_SHARD = re.compile(r".*\d{4,}")


@dataclass(frozen=True)
class Stated:
    """What a Parquet file states about some of its rows; None where it has no such column."""

    label: int | None
    generator: str | None
    split: str | None


@dataclass(frozen=True)
class Folder:
    """Image files that lie together.

    Attributes:
        place: the start of the files' ``path`` in the manifest, without the last slash; empty for the root.
        folders: names of the folders from the root down, archives among them counted as folders of their own name.
        names: names of the files, with extension, as text of :mod:`storage.names`.
        sizes: size of each in bytes.
        mtimes: modification time of each in ns.
        is_shared: whether it lies below the second root, that of the shared real images.
        stated: what the file that holds the images says of them.
    """

    place: str
    folders: tuple[str, ...]
    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    mtimes: array[int] = field(default_factory=lambda: array("q"))
    is_shared: bool = False
    stated: Stated | None = None

    def add(self, name: str, size_bytes: int, mtime_ns: int) -> None:
        """Add one file."""
        self.names.append(name)
        self.sizes.append(size_bytes)
        self.mtimes.append(mtime_ns)

    def path(self, name: str) -> str:
        """Return the ``path`` of one of its files in the manifest."""
        return f"{self.place}/{name}" if self.place else name

    def __len__(self) -> int:
        return len(self.names)


def is_image(name: str) -> bool:
    """Tell by its extension, in any case, whether a file is an image."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and "." in name


def kind_of(name: str) -> str:
    """Return what a file that is no image is counted as."""
    extension = name.rpartition(".")[2].lower()
    return f".{extension}" if "." in name else "no extension"


def folders_of(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the folder names that a layout sees for the parts of a place.

    ``images/sdxl.zip!/sdxl/val`` reads ``images/sdxl/val`` and ``1_fake.zip!`` reads ``1_fake``; numbered shards and
    Parquet files, whose names say nothing of the images, are left out.
    """
    seen: list[str] = []
    for at, part in enumerate(parts):
        archive = _ARCHIVE.fullmatch(part)
        if archive is None:
            seen.append(part)
            continue
        stem = archive["stem"]
        beside = [*seen[-1:], *parts[at + 1 : at + 2]]
        is_shard = archive["kind"].lower() == "parquet" or _NUMBERED_SHARD.fullmatch(stem) is not None
        if not is_shard and stem.casefold() not in [name.casefold() for name in beside]:
            seen.append(stem)
    return tuple(seen)
