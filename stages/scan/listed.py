r"""The layout ``list``: a CSV or Parquet file that names every image of a corpus.

::

    path,label,generator,split,set
    photos/1.jpg,real,,test,dalle;midjourney
    shards/dalle.zip!/1.png,fake,dalle,test,dalle

``path`` and ``label`` are needed. Paths are relative to the folder of the list; ``./a//1.jpg`` and ``b/../a/1.jpg`` are
``a/1.jpg``, and so is ``a\1.jpg`` where there is no file of that name. ``set`` may hold several names with a semicolon
between, or be a list in Parquet; without it, the generator is the set, and reals are in all sets. An image that is
listed several times with different sets is one image of all of them.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.scan.found import Folder
from stages.scan.place import Place, label_of, split_word
from storage import names
from storage.archives import ArchiveError, opened, readable
from storage.errors import DataError
from storage.sources import MEMBER, REALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stages.reporter import Progress
    from storage.sources import Sources

LIST_EXTENSIONS = (".csv", ".tsv", ".parquet")
_COLUMNS = ("path", "label", "generator", "split", "set")


def read_list(sources: Sources, progress: Progress) -> tuple[list[tuple[Folder, Place]], list[Folder]]:
    """Read the list of images that is a corpus's root, and look up size and time of each file.

    Args:
        sources: the corpus's roots.
        progress: counts the images.

    Returns:
        The images, grouped by what the list says of them; and the archives it names that cannot be read.

    Raises:
        DataError: a column is missing or there twice, a line cannot be understood, contradicts another one, or names a
            file that is not there, or there is no line; the message names the list and the line.
    """
    source = sources.root
    seen: dict[str, tuple[str, Place, int]] = {}  # what is the same for all spellings of a file -> path, place, line
    for line, row in _rows(source):
        place = _place(row, f"{source}, line {line}")
        path = _path(row["path"], sources, f"{source}, line {line}")
        row_of_file = re.sub(r"(?i)(\.parquet!/\d{8}).*", r"\1", path)
        if path.startswith(f"{REALS}/") and place.label == 1:
            raise DataError(
                f"{source}, line {line}: {path!r} lies below the root of the shared real images and is listed as "
                "synthetic"
            )
        path, known, before = seen.get(row_of_file, (path, place, line))
        if (known.label, known.generator, known.split) != (place.label, place.generator, place.split):
            raise DataError(
                f"{source}: lines {before} and {line} both name {path!r} and state different things of it; keep one"
            )
        seen[row_of_file] = path, replace(place, sets=tuple(sorted({*known.sets, *place.sets}))), before
    if not seen:
        raise DataError(f"list {source} names no image: it has no line below its header")
    found: dict[Place, Folder] = {}
    failed: dict[str, Folder] = {}
    for path, place, line in seen.values():
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
            raise DataError(f"list {source} names {path!r} in line {line}, and {sources.where(path)} does not exist")
        found.setdefault(place, Folder("")).add(path, *stamp)
        progress.advance(1)
    return [(folder, place) for place, folder in found.items()], list(failed.values())


def is_list(source: str) -> bool:
    """Tell whether a file is a list of images: its first columns are read."""
    if not source.lower().endswith(LIST_EXTENSIONS):
        return False
    if source.lower().endswith(".parquet"):
        with readable(source), opened(source) as file:
            return {"path", "label"} <= set(pq.read_schema(file).names)
    return True


def _rows(source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number of the line, or of the row of a Parquet file; column -> value)."""
    try:
        with opened(source) as file:
            if source.lower().endswith(".parquet"):
                parquet = pq.ParquetFile(file)
                columns = _columns(parquet.schema_arrow.names, source)
                batches = parquet.iter_batches(columns=list(columns), use_threads=False)
                yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
                return
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            lines = csv.reader(text, delimiter="\t" if source.lower().endswith(".tsv") else ",", strict=True)
            header = [name.strip() for name in next(lines, [])]
            columns = _columns(header, source)
            number = lines.line_num + 1
            for line in lines:
                if len(line) not in {0, len(header)}:
                    raise DataError(
                        f"{source}, line {number}: {len(line)} values, expected {len(header)}; put those with "
                        "a separator in them into quotes"
                    )
                if line:
                    yield number, {name: line[at] for name, at in columns.items()}
                number = lines.line_num + 1
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"list {source} cannot be read ({str(error).splitlines()[0]})") from error


def _columns(header: Sequence[str], source: str) -> dict[str, int]:
    """Return column -> position, of the columns that are read."""
    absent = [name for name in ("path", "label") if name not in header]
    if absent:
        raise DataError(
            f"list {source} lacks the column {' and '.join(absent)}; it has {', '.join(header) or 'none'}, "
            f"expected {', '.join(_COLUMNS)}"
        )
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"list {source} has more than one column {' and '.join(twice)}; keep one of each")
    return {name: header.index(name) for name in _COLUMNS if name in header}


def _path(path: Any, sources: Sources, where: str) -> str:
    """Return the one spelling of a path, as the manifest has it."""
    if isinstance(path, str) and path.strip():
        text = posixpath.normpath(names.to_text(path))
        if "\\" in path and ("!\\" in path or sources.stamp(text) is None):  # a list made on Windows
            text = posixpath.normpath(names.to_text(path.replace("\\", "/")))
        if not text.startswith("/") and text.partition("/")[0] not in {"..", "."} and not re.match(r"[A-Za-z]:/", text):
            return text
    raise DataError(f"{where}: path {path!r} does not lie below the list's folder; make it relative to that folder")


def _text(value: Any, column: str, where: str) -> str:
    """Return a value as text; other programs write whole numbers as 1.0, and a missing text as NaN."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {column} {value!r} is neither text nor a number")
    return str(int(value) if isinstance(value, bool) else value).strip()


def _place(row: dict[str, Any], where: str) -> Place:
    stated = _text(row["label"], "label", where)
    label = label_of(stated)
    if label is None:
        raise DataError(f"{where}: label {stated!r} says neither real nor synthetic; expected 0 or real, 1 or fake")
    stated_split = _text(row.get("split"), "split", where)
    split = split_word(stated_split)
    if stated_split and split is None:
        raise DataError(f"{where}: split {stated_split!r} is not known; expected train, val or test")
    generator = (_text(row.get("generator"), "generator", where) or None) if label else None
    listed = row.get("set")
    if isinstance(listed, list):
        spelled = [_text(name, "set", where) for name in listed]
    else:
        spelled = [name.strip() for name in _text(listed, "set", where).split(";")]
    sets = tuple(sorted(set(spelled) - {""}))
    pool = "" if label or not sets else None  # reals without a set are those of all synthetic images
    sets = sets or (generator or "",)
    return Place(label, generator or (sets[0] if label and len(sets) == 1 else None), split, sets, pool=pool)
