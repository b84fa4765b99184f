"""Image files inside archives, and what WebDataset tars and Parquet files state of them, without opening any image."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from stages.scan.classes import EXPECTED, LEFT_OUT, as_text
from stages.scan.folder import Folder, FolderLabels
from storage import names
from storage.archives import identity, image_column, list_members, readable
from storage.errors import DataError
from storage.remote import ArchiveError, opened, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from stages.scan.classes import ClassNames
    from storage.archives import Member

    LeftOut = Callable[[str, str], None]
    _Image = tuple[str, str, int, FolderLabels | None]  # folder, name, size in bytes, what is stated of it

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
BY_CLASS = "image(s) of a class to leave out"
# What Parquet files of images call label, generator, split and file name; the first column that is there counts.
_STATED_COLUMNS = (
    ("label", "labels", "class"),
    ("generator", "model_name", "model"),
    ("split",),
    ("image_name", "file_name", "filename"),
)
_LABEL_EXTENSIONS = (".cls", ".json", ".txt")
_MOST_LABEL_BYTES = 1 << 20


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or a folder that a system makes, such as a recycle bin."""
    return name.startswith(".") or name.casefold() in _SYSTEM_FOLDERS


def is_image(name: str) -> bool:
    """Tell by its extension, in any case, whether a file is an image."""
    return "." in name and name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS


def kind_of(name: str) -> str:
    """Return what a file that is no image is counted as."""
    return f".{name.rpartition('.')[2].lower()}" if "." in name else "no extension"


def archive_folders(location: str, prefix: str, left_out: LeftOut, classes: ClassNames | None) -> Iterator[Folder]:
    """Yield the folders of image files inside an archive, or the rows of a Parquet file by what it states of them.

    An archive without images gives one empty folder.

    Args:
        location: the archive, a path or a URL.
        prefix: its own path in the manifest.
        left_out: told the kind and the path of each entry that is left out.
        classes: names of the classes, to read the labels that columns and members state; None to read none.

    Raises:
        ArchiveError: the archive is damaged, or holds two images of one name.
        DataError: a label in it is not known.
        OSError: it may not be read.
    """
    size, mtime_ns = stamp_of(location)
    if location.lower().endswith(".parquet"):
        images = _rows(location, prefix, size, left_out, classes)
    else:
        images = _members(location, prefix, left_out, classes)
    found: dict[tuple[str, FolderLabels | None], Folder] = {}
    for inner, name, size_bytes, labels in images:
        at = f"{prefix}!/{inner}" if inner else f"{prefix}!"
        if labels is not None and labels.label == LEFT_OUT:
            left_out(BY_CLASS, f"{at}/{name}")
            continue
        if (at, labels) not in found:
            found[at, labels] = Folder(at, labels)
        found[at, labels].add(name, size_bytes, mtime_ns)
    yield from found.values() or (Folder(f"{prefix}!"),)


def _members(location: str, prefix: str, left_out: LeftOut, classes: ClassNames | None) -> Iterator[_Image]:
    """Yield the images of a zip or tar file in its own order."""
    images: list[tuple[str, str, int, str]] = []  # folder, name, size, key
    stating: dict[str, list[Member]] = defaultdict(list)  # key of an image -> members that may state its label
    seen: set[str] = set()
    may_state = classes is not None and location.lower().endswith(".tar")
    for member in list_members(location):
        # the exact spelling of the member, so that it is found again: "./a/1.png" stays
        spelled = names.to_text(member.name)
        inner, _, name = spelled.rpartition("/")
        is_label = may_state and name.endswith(_LABEL_EXTENSIONS)
        if any(is_hidden(part) and part != "." for part in (*inner.split("/"), name)):
            left_out("hidden", f"{prefix}!/{spelled}")
        elif member.kind:
            left_out(f"{member.kind} in {prefix}", f"{prefix}!/{spelled}")
        elif not is_label and not is_image(name):
            left_out(kind_of(name), f"{prefix}!/{spelled}")
        else:
            path = identity(spelled)
            if path in seen:
                raise ArchiveError(
                    f"archive {location} holds two files called {path!r}, of which one would be lost; unpack it, "
                    "or make it anew without the one that is not wanted"
                )
            seen.add(path)
            # the files of one example have the name up to its first dot in common
            key = path[: len(path) - len(name)] + name.partition(".")[0]
            if is_label:
                stating[key].append(member)
            else:
                images.append((inner, name, member.size, key))
    of_images = {key: stating[key] for *_, key in images if key in stating}
    stated = {} if classes is None else _stated_labels(location, prefix, of_images, classes)
    for key, members in stating.items():
        for member in members if key not in stated else ():
            left_out(kind_of(member.name), f"{prefix}!/{member.name}")
    for inner, name, size, key in images:
        yield inner, name, size, stated.get(key, FolderLabels(None)) if stated else None


def _stated_labels(
    location: str, prefix: str, stating: dict[str, list[Member]], classes: ClassNames
) -> dict[str, FolderLabels]:
    """Read the members ``.cls``, ``.json`` and ``.txt`` of a WebDataset tar: key of an image -> what they state.

    Texts are captions unless every one of them is a class. Below a class folder, numbers that are no class are those
    of categories.

    Raises:
        DataError: a member says neither real nor synthetic, or two of one image contradict each other.
    """
    found: list[tuple[str, str, str, str]] = []  # extension, key, value, what is stated
    with readable(location), opened(location) as file:
        for key, members in sorted(stating.items(), key=lambda entry: entry[1][0].start):
            for member in members:
                file.seek(member.start)
                text = file.read(min(member.size, _MOST_LABEL_BYTES)).decode("utf-8", "replace").strip()
                extension = member.name.rpartition(".")[2]
                for value in _values(text) if extension == "json" else [text]:
                    spelled = str(int(value) if isinstance(value, bool) else value)
                    found.append((extension, key, spelled, f"{member.name} says {value!r}"))
    if any(extension == "txt" and classes.label(value) is None for extension, _, value, _ in found):
        found = [entry for entry in found if entry[0] != "txt"]
    stated: dict[str, tuple[FolderLabels, str]] = {}
    for _, key, value, what in found:
        if classes.label(value) is None:
            if classes.find(Folder(f"{prefix}!").folders) is not None:
                return {}
            raise DataError(f"{location}: {what[:200]}, which is neither real nor synthetic; {EXPECTED}")
        labels = FolderLabels(*classes.stated(value, location))
        known, before = stated.setdefault(key, (labels, what))
        if known.label != labels.label:
            raise DataError(f"{location}: {before}, but {what}; correct one of them")
    return {key: labels for key, (labels, _) in stated.items()}


def _values(text: str) -> list[Any]:
    """Return what the JSON file of an example states as its label: nothing, or one value, or several."""
    try:
        content = json.loads(text)
    except ValueError:
        return [text]
    return [content[name] for name in ("label", "cls") if name in content] if isinstance(content, dict) else [content]


def _rows(location: str, prefix: str, size: int, left_out: LeftOut, classes: ClassNames | None) -> Iterator[_Image]:
    """Yield the rows of a Parquet file of images, each with the size of the file."""
    with readable(location), opened(location) as file:
        parquet = pq.ParquetFile(file)
        schema, count = parquet.schema_arrow, parquet.metadata.num_rows
        column, others = image_column(schema, location)
        if column is None:
            left_out(".parquet without images", prefix)
            return
        columns = [next((name for name in spelled if name in schema.names), None) for spelled in _STATED_COLUMNS]
        if classes is None:
            columns[:3] = None, None, None
        table = parquet.read(columns=[name for name in columns if name is not None], use_threads=False)
    for name in others:
        for row in range(count):
            left_out(f"image in the column {name!r} of {prefix}", f"{prefix}!/{row:08d}")
    values = [[None] * count if name is None else table[name].to_pylist() for name in columns]
    class_names = _class_names(schema, columns[0])
    known: dict[Any, tuple[int | None, str | None]] = {None: (None, None)}
    if class_names:
        known[-1] = None, None  # how the Hugging Face library writes "no label"
    for row, (value, generator, split, file_name) in enumerate(zip(*values, strict=True)):
        if value not in known and classes is not None:
            spelled = as_text(value, "label")
            if isinstance(value, int) and 0 <= value < len(class_names):
                spelled = class_names[value]
            known[value] = classes.stated(spelled, f"{location}, row {row}", class_names)
        label, by_label = known[value]
        labels = FolderLabels(
            label, by_label if generator is None else str(generator), None if split is None else str(split)
        )
        name = "" if file_name is None else f"/{names.to_text(str(file_name)).replace('/', '_')}"
        yield "", f"{row:08d}{name}", size, labels


def _class_names(schema: pa.Schema, column: str | None) -> list[str]:
    """Return the names of a label column's numbers where the file says them, as the Hugging Face library writes it."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    names_of: list[str] | None = json.loads(text).get("info", {}).get("features", {}).get(column, {}).get("names")
    return names_of or []
