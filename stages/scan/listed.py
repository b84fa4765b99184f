"""The layout ``list``: a CSV or Parquet file that names every image of a corpus.

::

    path,label,generator,split,set
    photos/1.jpg,real,,test,dalle;midjourney
    shards/dalle.zip!/1.png,fake,dalle,test,dalle

``path`` and ``label`` are needed. Paths are relative to the folder of the list. ``set`` may hold several names with a
semicolon between, or be a list in Parquet; without it, the generator is the set, and reals are in all sets. An image
that is listed several times with different sets is one image of all of them.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from stages.scan.found import Folder
from stages.scan.place import Place, label_of, split_word
from storage import names
from storage.archives import opened, readable
from storage.errors import DataError
from storage.sources import REALS

if TYPE_CHECKING:
    from stages.reporter import Progress
    from storage.sources import Sources

LIST_EXTENSIONS = (".csv", ".tsv", ".parquet")
_COLUMNS = ("path", "label", "generator", "split", "set")


def read_list(sources: Sources, progress: Progress) -> list[tuple[Folder, Place]]:
    """Read the list of images that is a corpus's root, and look up size and time of each file.

    Args:
        sources: the corpus's roots.
        progress: counts the images.

    Returns:
        The images, grouped by what the list says of them.

    Raises:
        DataError: a column is missing, a line cannot be understood, contradicts another one, or names a file that is
            not there; the message names the list and the line.
    """
    source = sources.root
    table = _table(source)
    absent = [name for name in ("path", "label") if name not in table.column_names]
    if absent:
        raise DataError(
            f"list {source} lacks the column {' and '.join(absent)}; it has {', '.join(table.column_names)}, expected "
            f"{', '.join(_COLUMNS)}"
        )
    seen: dict[str, Place] = {}
    table = table.select([name for name in _COLUMNS if name in table.column_names])
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in table.to_batches())
    for line, row in enumerate(rows, start=1 if source.lower().endswith(".parquet") else 2):
        place = _place(row, f"{source}, line {line}")
        path = names.to_text(row["path"])
        known = seen.get(path)
        if known is not None:
            if (known.label, known.generator, known.split) != (place.label, place.generator, place.split):
                raise DataError(f"{source}, line {line}: {path!r} is listed before as something else; keep one line")
            place = replace(place, sets=tuple(sorted({*known.sets, *place.sets})))
        seen[path] = place
    found: dict[Place, Folder] = {}
    for path, place in seen.items():
        stamp = sources.stamp(path)
        if stamp is None:
            raise DataError(f"list {source} names {path!r}, and {sources.where(path)} does not exist")
        found.setdefault(place, Folder("")).add(path, *stamp)
        progress.advance(1)
    return [(folder, place) for place, folder in found.items()]


def is_list(source: str) -> bool:
    """Tell whether a file is a list of images: its first columns are read."""
    if not source.lower().endswith(LIST_EXTENSIONS):
        return False
    if source.lower().endswith(".parquet"):
        with readable(source), opened(source) as file:
            return {"path", "label"} <= set(pq.read_schema(file).names)
    return True


def _table(source: str) -> pa.Table:
    try:
        with opened(source) as file:
            if source.lower().endswith(".parquet"):
                return pq.ParquetFile(file).read(use_threads=False)
            delimiter = "\t" if source.lower().endswith(".tsv") else ","
            content = file.read()
            header = content.partition(b"\n")[0].decode("utf-8-sig").strip().split(delimiter)
            owned = pa.BufferOutputStream()  # Arrow's own memory, as in storage.parquet: its reader always has threads
            owned.write(content)
            return pa.csv.read_csv(
                pa.BufferReader(owned.getvalue()),
                parse_options=pa.csv.ParseOptions(delimiter=delimiter),
                convert_options=pa.csv.ConvertOptions(column_types={name.strip('"'): pa.string() for name in header}),
            )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"list {source} cannot be read ({str(error).splitlines()[0]})") from error


def _place(row: dict[str, Any], where: str) -> Place:
    path = row["path"]
    if not isinstance(path, str) or not path or path.startswith(("/", "\\")) or ".." in path.split("/"):
        raise DataError(f"{where}: path {path!r} does not lie below the list's folder; make it relative to that folder")
    label = label_of(str(row["label"])) if row["label"] is not None else None
    if label is None:
        raise DataError(
            f"{where}: label {row['label']!r} says neither real nor synthetic; expected 0 or real, 1 or fake"
        )
    stated_split = (row.get("split") or "").strip()
    split = split_word(stated_split)
    if stated_split and split is None:
        raise DataError(f"{where}: split {stated_split!r} is not known; expected train, val or test")
    generator = (row.get("generator") or "").strip() or None if label else None
    stated = row.get("set")
    spelled = stated.split(";") if isinstance(stated, str) else list(stated or ())
    sets = tuple(sorted({name.strip() for name in spelled if name.strip()}))
    pool = "" if label or not sets else None  # reals without a set are those of all synthetic images
    sets = sets or (generator or "",)
    if path.startswith(f"{REALS}/") and label == 1:
        raise DataError(f"{where}: {path!r} lies below the root of the shared real images and is listed as synthetic")
    return Place(label, generator or (sets[0] if label and len(sets) == 1 else None), split, sets, pool=pool)
