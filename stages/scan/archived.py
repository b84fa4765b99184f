"""Image files inside archives and Parquet files, as the folders of a walk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.scan.classes import label_of
from stages.scan.found import Folder, Stated, folders_of, is_image, kind_of
from storage import names
from storage.archives import image_column, list_members, opened, readable, stamp_of
from storage.errors import DataError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

# What Parquet files of images call what we need; the first column that is there counts.
_LABEL_COLUMNS = ("label", "labels", "class")
_GENERATOR_COLUMNS = ("generator", "model_name", "model")
_SPLIT_COLUMNS = ("split",)
_NAME_COLUMNS = ("image_name", "file_name", "filename")


def archive_folders(
    location: str, parts: tuple[str, ...], skipped: Counter[str], *, is_shared: bool
) -> Iterator[Folder]:
    """Yield the folders of image files inside an archive, or the rows of a Parquet file.

    Args:
        location: the archive, a path or a URL.
        parts: its place in the manifest, its own name last.
        skipped: counts of what is left out, to be added to.
        is_shared: whether it lies below the second root.

    Raises:
        DataError: the archive is damaged, or a label in it is not known.
    """
    size_bytes, mtime_ns = stamp_of(location)
    top = (*parts[:-1], f"{parts[-1]}!")
    start = 1 if is_shared else 0
    if location.lower().endswith(".parquet"):
        yield from _rows(location, top, start, skipped, (size_bytes, mtime_ns))
        return
    found: dict[tuple[str, ...], Folder] = {}
    for member, size in list_members(location):
        *inner, name = (names.to_text(part) for part in member.split("/") if part not in ("", "."))
        if name.startswith(".") or any(part.startswith((".", "__MACOSX")) for part in inner):
            skipped["hidden"] += 1
        elif not is_image(name):
            skipped[kind_of(name)] += 1
        else:
            # the exact spelling of the member, so that it is found again: "./a/1.png" stays
            place = "/".join((*top, *(names.to_text(part) for part in member.split("/")[:-1])))
            folders = folders_of((*top, *inner)[start:])
            found.setdefault((place, *folders), Folder(place, folders, is_shared=is_shared)).add(name, size, mtime_ns)
    yield from found.values()


def _rows(
    location: str, top: tuple[str, ...], start: int, skipped: Counter[str], stamp: tuple[int, int]
) -> Iterator[Folder]:
    with readable(location), opened(location) as file:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
        if image_column(schema) is None:
            skipped[".parquet without images"] += 1
            return
        wanted = (_LABEL_COLUMNS, _GENERATOR_COLUMNS, _SPLIT_COLUMNS, _NAME_COLUMNS)
        columns = [next((name for name in names_of if name in schema.names), None) for names_of in wanted]
        table = parquet.read(columns=[name for name in columns if name is not None])
    rows = parquet.metadata.num_rows
    labels, generators, splits, file_names = (
        [None] * rows if name is None else table[name].to_pylist() for name in columns
    )
    class_names = _class_names(schema, columns[0])
    found: dict[tuple[Any, Any, Any], Folder] = {}
    for row in range(rows):
        key = (labels[row], generators[row], splits[row])
        if key not in found:
            stated = Stated(_label(key[0], class_names, location, row), key[1], key[2])
            shared = start == 1
            found[key] = Folder("/".join(top), folders_of(top[start:]), is_shared=shared, stated=stated)
        name = "" if file_names[row] is None else f"/{names.to_text(str(file_names[row])).replace('/', '_')}"
        found[key].add(f"{row:08d}{name}", *stamp)
    yield from found.values()


def _class_names(schema: pa.Schema, column: str | None) -> Sequence[str] | None:
    """Return the names of a label column's numbers where the file says them, as the Hugging Face library writes it."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None or column is None:
        return None
    feature = json.loads(text).get("info", {}).get("features", {}).get(column, {})
    class_names: Sequence[str] | None = feature.get("names")
    return class_names


def _label(value: Any, class_names: Sequence[str] | None, location: str, row: int) -> int | None:
    if value is None:
        return None
    if class_names is not None and isinstance(value, int):
        if value == -1:  # how the Hugging Face library writes "no label"
            return None
        spelled = class_names[value] if 0 <= value < len(class_names) else str(value)
    else:
        spelled = str(value)
    label = label_of(spelled)
    if label is None:
        raise DataError(
            f"{location}, row {row}: label {spelled!r} says neither real nor synthetic; expected 0 or real, 1 or fake "
            "(other spellings are listed in docs/data.md)"
        )
    return label
