"""Image files that lie together, in a folder or inside an archive, found without opening any image."""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from stages.scan.place import Place, class_at, label_of, split_at, split_word
from storage import names
from storage.archives import ArchiveError, identity, image_column, list_members, opened, readable, stamp_of
from storage.errors import DataError
from storage.sources import REALS

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from storage.archives import Member

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jfif", "jpe", "png", "webp", "bmp", "tif", "tiff", "gif", "avif", "jp2", "heic", "heif"}
)
# Of Synology, QNAP, Windows, Linux and macOS; those that begin with a dot are hidden anyway.
_SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found"),
    }
)
_ARCHIVE = re.compile(r"(?P<stem>.*)\.(?P<kind>zip|tar|parquet)!", re.IGNORECASE)
_NUMBERED_SHARD = re.compile(r".*\d{4,}")
# What Parquet files of images call label, generator, split and file name; the first column that is there counts.
_STATED_COLUMNS = (
    ("label", "labels", "class"),
    ("generator", "model_name", "model"),
    ("split",),
    ("image_name", "file_name", "filename"),
)
_LABEL_EXTENSIONS = (".cls", ".json", ".txt")
_MOST_LABEL_BYTES = 1 << 20


@dataclass
class Folder:
    """Image files that lie together, which a layout labels together.

    Attributes:
        place: the start of the files' ``path`` in the manifest, without the last slash; empty for the root.
        stated: label, generator and split that an archive states for its images, None where it states none.
        names: names of the files, with extension, as text of :mod:`storage.names`.
        sizes: size of each in bytes.
        mtimes: modification time of each in ns.
        split: what the folder of a split on its path says: "train", "val", "test", or None.
        parts: ``folders`` without that of the split.
        error: why an archive, the only file of the folder, cannot be read; None for images.
    """

    place: str
    stated: Place | None = None
    names: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    mtimes: array[int] = field(default_factory=lambda: array("q"))
    split: str | None = field(init=False)
    parts: tuple[str, ...] = field(init=False)
    error: str | None = None

    def __post_init__(self) -> None:
        """Read the split from the path alone; :func:`stages.scan.place.read_splits` looks at the other folders too."""
        self.take_split(split_at(self.folders))

    def take_split(self, at: int | None) -> None:
        """Take the folder at a position of ``folders`` for that of the split; None for no split."""
        self.split = None if at is None else split_word(self.folders[at])
        self.parts = self.folders if at is None else self.folders[:at] + self.folders[at + 1 :]

    def add(self, name: str, size_bytes: int, mtime_ns: int) -> None:
        """Add one file."""
        self.names.append(name)
        self.sizes.append(size_bytes)
        self.mtimes.append(mtime_ns)

    def path(self, name: str) -> str:
        """Return the ``path`` of one of its files in the manifest."""
        return inside(self.place, name)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_shared(self) -> bool:
        """Whether it lies below the second root, that of the shared real images."""
        return self.place == REALS or self.place.startswith(f"{REALS}/")

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders from the root down, archives among them counted as folders of their own name.

        ``images/sdxl.zip!/sdxl/val`` reads ``images/sdxl/val`` and ``1_fake.zip!`` reads ``1_fake``; Parquet files and
        numbered shards are left out, as their names say nothing of the images but, above a class folder, the split.
        """
        parts = [part for part in self.place.split("/") if part not in ("", ".")][self.is_shared :]
        seen: list[str] = []
        for at, part in enumerate(parts):
            archive = _ARCHIVE.fullmatch(part)
            if archive is None:
                seen.append(part)
                continue
            stem = archive["stem"]
            beside = [name.casefold() for name in (*seen[-1:], *parts[at + 1 : at + 2])]
            is_shard = archive["kind"].lower() == "parquet" or _NUMBERED_SHARD.fullmatch(stem) is not None
            if not is_shard and stem.casefold() not in beside:
                seen.append(stem)
            elif is_shard and archive["kind"].lower() != "parquet" and split_word(stem) and class_at(seen) is None:
                seen.append(stem)  # train-000012.tar
        return tuple(seen)


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or a folder that a system makes, such as a recycle bin."""
    return name.startswith(".") or name.casefold() in _SYSTEM_FOLDERS


def is_image(name: str) -> bool:
    """Tell by its extension, in any case, whether a file is an image."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and "." in name


def kind_of(name: str) -> str:
    """Return what a file that is no image is counted as."""
    return f".{name.rpartition('.')[2].lower()}" if "." in name else "no extension"


def inside(place: str, name: str) -> str:
    """Return the place of a name inside a place."""
    return f"{place}/{name}" if place else name


def archive_folders(location: str, place: str, skipped: Counter[str], *, read_labels: bool = True) -> Iterator[Folder]:
    """Yield the folders of image files inside an archive, or the rows of a Parquet file by what it states of them.

    An archive without images gives one empty folder.

    Args:
        location: the archive, a path or a URL.
        place: its own place in the manifest.
        skipped: counts of what is left out, to be added to.
        read_labels: read the labels that columns of Parquet files and members of WebDataset tars state.

    Raises:
        ArchiveError: the archive is damaged, or holds two images of one name.
        DataError: a label in it is not known.
        OSError: it may not be read.
    """
    stamp = stamp_of(location)
    if location.lower().endswith(".parquet"):
        yield from _rows(location, place, stamp, skipped, read_labels=read_labels)
        return
    images: list[tuple[str, str, int, str]] = []  # folder, name, size, key
    labels: dict[str, list[Member]] = {}  # key of the image -> members that state its label
    seen: set[str] = set()
    for member in list_members(location):
        # the exact spelling of the member, so that it is found again: "./a/1.png" stays
        spelled = names.to_text(member.name)
        inner, _, name = spelled.rpartition("/")
        is_label = read_labels and name.endswith(_LABEL_EXTENSIONS) and location.lower().endswith(".tar")
        if any(is_hidden(part) and part != "." for part in (*inner.split("/"), name)):
            skipped["hidden"] += 1
        elif member.kind:
            skipped[f"{member.kind} in {place}"] += 1
        elif not is_label and not is_image(name):
            skipped[kind_of(name)] += 1
        else:
            path = identity(spelled)
            if path in seen:
                raise ArchiveError(
                    f"archive {location} holds two files called {path!r}, of which one would be lost; unpack it, "
                    "or make it anew without the one that is not wanted"
                )
            seen.add(path)
            if is_label:
                labels.setdefault(_key(path), []).append(member)
            else:
                images.append((inner, name, member.size, _key(path)))
    stated = _stated_labels(location, place, {key: labels[key] for *_, key in images if key in labels})
    skipped.update(kind_of(member.name) for key, members in labels.items() if key not in stated for member in members)
    found: dict[tuple[str, int | None], Folder] = {}
    for inner, name, size, key in images:
        at, label = f"{place}!/{inner}" if inner else f"{place}!", stated.get(key)
        if (at, label) not in found:
            found[at, label] = Folder(at, Place(label) if stated else None)
        found[at, label].add(name, size, stamp[1])
    yield from found.values() or (Folder(f"{place}!"),)


def _key(name: str) -> str:
    """Return what the files of one example have in common in a WebDataset tar: the name up to its first dot."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _stated_labels(location: str, place: str, labels: dict[str, list[Member]]) -> dict[str, int]:
    """Read the members ``.cls``, ``.json`` and ``.txt`` of a WebDataset tar: key of an image -> its label.

    Texts are captions unless every one of them is a class. Below a class folder, numbers that are no class are those
    of categories.

    Raises:
        DataError: a member says neither real nor synthetic, or two of one image contradict each other.
    """
    found: dict[str, list[tuple[int | None, str, str]]] = {}  # extension -> (label, key, what is stated)
    with readable(location), opened(location) as file:
        for key, members in sorted(labels.items(), key=lambda entry: entry[1][0].start):
            for member in members:
                file.seek(member.start)
                text = file.read(min(member.size, _MOST_LABEL_BYTES)).decode("utf-8", "replace").strip()
                extension = member.name.rpartition(".")[2]
                for value in _values(text) if extension == "json" else [text]:
                    label = label_of(str(value))
                    found.setdefault(extension, []).append((label, key, f"{member.name} says {value!r}"))
    if any(label is None for label, _, _ in found.get("txt", ())):
        del found["txt"]
    flat = [entry for entries in found.values() for entry in entries]
    unknown = next((what for label, _, what in flat if label is None), None)
    if unknown is not None:
        if class_at(Folder(f"{place}!").folders) is not None:
            return {}
        raise DataError(
            f"{location}: {unknown[:200]}, which is neither real nor synthetic; expected 0 or real, 1 or fake (other "
            "spellings are listed in docs/data.md)"
        )
    stated: dict[str, tuple[int, str]] = {}
    for label, key, what in flat:
        if label is not None and stated.setdefault(key, (label, what))[0] != label:
            raise DataError(f"{location}: {stated[key][1]}, but {what}; correct one of them")
    return {key: label for key, (label, _) in stated.items()}


def _values(text: str) -> list[Any]:
    """Return what the JSON file of an example states as its label: nothing, or one value, or several."""
    try:
        content = json.loads(text)
    except ValueError:
        return [text]
    if not isinstance(content, dict):
        return [content]
    return [
        int(value) if isinstance(value, bool) else value for name, value in content.items() if name in ("label", "cls")
    ]


def _rows(
    location: str, place: str, stamp: tuple[int, int], skipped: Counter[str], *, read_labels: bool
) -> Iterator[Folder]:
    with readable(location), opened(location) as file:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        column, others = image_column(schema, location)
        if column is None:
            skipped[".parquet without images"] += 1
            yield Folder(f"{place}!")
            return
        columns = [next((name for name in spelled if name in schema.names), None) for spelled in _STATED_COLUMNS]
        if not read_labels:
            columns[:3] = None, None, None
        table = parquet.read(columns=[name for name in columns if name is not None], use_threads=False)
    for name in others:
        skipped[f"image in the column {name!r} of {place}"] += parquet.metadata.num_rows
    nothing = [None] * parquet.metadata.num_rows
    values = [nothing if name is None else table[name].to_pylist() for name in columns]
    class_names = _class_names(schema, columns[0])
    found: dict[tuple[Any, Any, Any], Folder] = {}
    for row, (label, generator, split, file_name) in enumerate(zip(*values, strict=True)):
        key = (label, generator, split)
        if key not in found:
            found[key] = Folder(f"{place}!", Place(_label(label, class_names, location, row), generator, split))
        name = "" if file_name is None else f"/{names.to_text(str(file_name)).replace('/', '_')}"
        found[key].add(f"{row:08d}{name}", *stamp)
    yield from found.values() or (Folder(f"{place}!"),)


def _class_names(schema: pa.Schema, column: str | None) -> Sequence[str] | None:
    """Return the names of a label column's numbers where the file says them, as the Hugging Face library writes it."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None or column is None:
        return None
    class_names: Sequence[str] | None = (
        json.loads(text).get("info", {}).get("features", {}).get(column, {}).get("names")
    )
    return class_names


def _label(value: Any, class_names: Sequence[str] | None, location: str, row: int) -> int | None:
    if value is None:
        return None
    spelled = str(value)
    if class_names is not None and isinstance(value, int):
        if value == -1:  # how the Hugging Face library writes "no label"
            return None
        spelled = class_names[value] if 0 <= value < len(class_names) else spelled
    label = label_of(spelled)
    if label is None:
        raise DataError(
            f"{location}, row {row}: label {spelled!r} says neither real nor synthetic; expected 0 or real, 1 or fake "
            "(other spellings are listed in docs/data.md)"
        )
    return label
