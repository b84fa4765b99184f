r"""The layout ``list``: a table in a CSV or Parquet file that names every image of a corpus.

::

    path,label,generator,split,set
    photos/1.jpg,real,,test,dalle;midjourney
    shards/dalle.zip!/1.png,fake,dalle,test,dalle

The columns ``path`` and ``label`` are needed; docs/data.md lists other names of columns, and what a path may look like.
Without ``set``, the generator is the set, and reals are in all sets. An image that is listed several times with other
sets is one image of all of them.
"""

from __future__ import annotations

import csv  # pandas knows neither the line of a row nor a line with too few values
import io
import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.scan.classes import LEFT_OUT, as_text, split_word
from stages.scan.folder import Folder, FolderLabels
from stages.scan.packed import BY_CLASS, is_image
from storage import names
from storage.archives import readable
from storage.errors import DataError, first_line
from storage.names import REALS
from storage.remote import ArchiveError, opened
from storage.sources import MEMBER, base_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    from stages.reporter import Progress
    from stages.scan.classes import ClassNames
    from storage.sources import Sources

LIST_EXTENSIONS = (".csv", ".tsv", ".parquet")
# Column -> what tables call it, in any case; the first name that is there counts.
_COLUMNS = {
    "path": [
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("image", "image_path", "img", "img_path"),
    ],
    "label": ["label", "class", "target", "is_fake", "y"],
    "generator": ["generator", "model", "model_name"],
    "split": ["split"],
    "set": ["set", "sets"],
}
_STATED = tuple(_COLUMNS)[1:]
_DELIMITERS = (",", ";", "\t")


def read_list(
    sources: Sources, classes: ClassNames, skipped: Counter[str], progress: Progress
) -> tuple[list[tuple[Folder, FolderLabels]], list[Folder], list[str]]:
    """Read the list of images that is a corpus's root, and look up size and time of each file.

    Args:
        sources: the corpus's roots.
        classes: what the labels mean.
        skipped: kind of image -> how many are left out; added to.
        progress: counts the images.

    Returns:
        The images, grouped by what the list says of them; the archives it names that cannot be read; and the files it
        names that do not exist, with their lines.

    Raises:
        DataError: a column is missing or there twice, a line cannot be understood or contradicts another one, or no
            file that it names is there; the message names the list and the line.
    """
    source = sources.root
    base = posixpath.normpath(names.to_text(posixpath.abspath(base_of(source)))).rstrip("/") + "/"
    seen: dict[str, tuple[str, FolderLabels, int]] = {}  # what is the same for all spellings of a file -> path ...
    stated: dict[tuple[str, ...], FolderLabels] = {}  # what a row states, but its path -> what that means
    for line, row in _rows(source):
        where, statement = f"{source}, line {line}", tuple(str(row.get(name)) for name in _STATED)
        if statement not in stated:
            stated[statement] = _labels(row, where, classes)
        labels = stated[statement]
        if labels.label == LEFT_OUT:
            skipped[BY_CLASS] += 1
            continue
        path = _path(row["path"], base, sources, where)
        if path.startswith(f"{REALS}/") and labels.label == 1:
            raise DataError(
                f"{where}: {path!r} lies below the root of the shared real images and is listed as synthetic"
            )
        row_of_file = re.sub(r"(?i)(\.parquet!/\d{8}).*", r"\1", path) if "!" in path else path
        if row_of_file not in seen:
            seen[row_of_file] = path, labels, line
            continue
        path, known, before = seen[row_of_file]
        if replace(known, sets=(), pool=None) != replace(labels, sets=(), pool=None):
            raise DataError(
                f"{source}: lines {before} and {line} both name {path!r} and state different things of it; keep one"
            )
        seen[row_of_file] = path, replace(labels, sets=tuple(sorted({*known.sets, *labels.sets}))), before
    if not seen:
        raise DataError(f"list {source} names no image: it has no line below its header")
    found: dict[FolderLabels, Folder] = {}
    failed: dict[str, Folder] = {}
    missing: list[str] = []
    for path, labels, line in seen.values():
        archive = MEMBER.split(path, maxsplit=1)[0]
        if archive in failed:
            continue
        try:
            stamp = sources.stamp(path)
        except ArchiveError as error:
            failed[archive] = Folder("", error=str(error))
            failed[archive].add(archive, *(sources.stamp(archive) or (0, 0)))
            continue
        if stamp is None:
            missing.append(f"{path} (line {line})")
            continue
        found.setdefault(labels, Folder("")).add(path, *stamp)
        progress.advance(1)
    if not found and not failed:
        raise DataError(f"list {source} names {missing[0]}, and no file that it names exists below {base_of(source)}")
    return [(folder, labels) for labels, folder in found.items()], list(failed.values()), missing


def is_list(source: str) -> bool:
    """Tell whether a file is a list of images: the columns of a Parquet file are read."""
    if not source.lower().endswith(".parquet"):
        return source.lower().endswith(LIST_EXTENSIONS)
    with readable(source), opened(source) as file:
        schema = pq.read_schema(file)
    columns = _known_columns(schema.names)
    # not the bytes of images
    return {"path", "label"} <= set(columns) and schema.types[columns["path"]] in (pa.string(), pa.large_string())


def _rows(source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number of the line, or of the row of a Parquet file; column -> value)."""
    try:
        with opened(source) as file:
            if source.lower().endswith(".parquet"):
                parquet = pq.ParquetFile(file)
                spelled = parquet.schema_arrow.names
                columns = {name: spelled[at] for name, at in _columns(spelled, source).items()}
                batches = parquet.iter_batches(columns=list(columns.values()), use_threads=False)
                rows = (row for batch in batches for row in batch.to_pylist())
                for number, row in enumerate(rows, start=1):
                    yield number, {name: row[spelling] for name, spelling in columns.items()}
            else:
                with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
                    yield from _csv_rows(text, source)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"list {source} cannot be read ({first_line(error)})") from error


def _csv_rows(text: io.TextIOWrapper, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    first = text.readline()
    text.seek(0)
    cells = {delimiter: first.strip("\r\n").split(delimiter) for delimiter in _DELIMITERS}
    # by which most columns are known, or which parts most values
    delimiter = max(_DELIMITERS, key=lambda each: (len(_known_columns(cells[each])), len(cells[each])))
    lines = csv.reader(text, delimiter=delimiter, strict=True)
    header = next(lines, [])
    columns, number = dict(zip(_COLUMNS, range(len(header)), strict=False)), lines.line_num + 1
    if len(header) > 1 and not _known_columns(header) and is_image(MEMBER.split(header[0].strip())[-1]):
        yield 1, {name: header[at] for name, at in columns.items()}  # there is no header
    else:
        columns = _columns(header, source)
    is_flag = header[columns["label"]].strip().casefold() == "is_fake"
    for line in lines:
        if len(line) not in {0, len(header)}:
            raise DataError(
                f"{source}, line {number}: {len(line)} values, expected {len(header)}; put those with a separator in "
                "them into quotes"
            )
        if line:
            row = {name: line[at] for name, at in columns.items()}
            flag = {"true": "1", "false": "0"}.get(row["label"].strip().casefold())
            yield number, row | {"label": flag} if is_flag and flag else row
        number = lines.line_num + 1


def _known_columns(header: Sequence[str]) -> dict[str, int]:
    """Return column -> position of the first of its names that is there."""
    spelled = [name.strip().strip('"').casefold() for name in header]
    return {
        column: spelled.index(found)
        for column, known in _COLUMNS.items()
        if (found := next((name for name in known if name in spelled), None)) is not None
    }


def _columns(header: Sequence[str], source: str) -> dict[str, int]:
    """Return column -> position, of the columns that are read; path and label have to be there, and each once."""
    columns = _known_columns(header)
    absent = [name for name in ("path", "label") if name not in columns]
    if absent:
        raise DataError(
            f"list {source} lacks the column {' and '.join(absent)}; it has {', '.join(header) or 'none'}, expected "
            f"{', '.join(_COLUMNS)} (docs/data.md lists other names of them)"
        )
    spelled = [name.strip().casefold() for name in header]
    twice = [spelled[at] for at in columns.values() if spelled.count(spelled[at]) > 1]
    if twice:
        raise DataError(f"list {source} has more than one column {' and '.join(twice)}; keep one of each")
    return columns


def _path(path: Any, base: str, sources: Sources, where: str) -> str:
    """Return the one spelling of a path, as the manifest has it."""
    if isinstance(path, str) and path.strip():
        text = posixpath.normpath(names.to_text(path))
        if "\\" in path and ("!\\" in path or sources.stamp(text) is None):  # a list made on Windows
            text = posixpath.normpath(names.to_text(path.replace("\\", "/")))
        text = text.removeprefix(base)
        if not text.startswith("/") and text.partition("/")[0] not in {"..", "."} and not re.match(r"[A-Za-z]:/", text):
            return text
    raise DataError(f"{where}: path {path!r} does not lie below the list's folder; make it relative to that folder")


def _labels(row: dict[str, Any], where: str, classes: ClassNames) -> FolderLabels:
    """Return what a row states."""
    label, by_label = classes.stated(as_text(row["label"], f"{where}: label"), where)
    stated_split = as_text(row.get("split"), f"{where}: split")
    split = split_word(stated_split)
    if stated_split and split is None:
        raise DataError(f"{where}: split {stated_split!r} is not known; expected train, val or test")
    generator = (as_text(row.get("generator"), f"{where}: generator") or by_label) if label else None
    listed = row.get("set")
    spelled = listed if isinstance(listed, list) else as_text(listed, f"{where}: set").split(";")
    sets = tuple(sorted({as_text(name, f"{where}: set") for name in spelled} - {""}))
    pool = "" if label or not sets else None  # reals without a set are those of all synthetic images
    sets = sets or (generator or "",)
    return FolderLabels(label, generator or (sets[0] if label and len(sets) == 1 else None), split, sets, pool=pool)
