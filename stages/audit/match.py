"""Format-matched subsets of test sets, so that a number without the file bias can stand beside the raw one.

Real and synthetic images of a set are put into cells of equal format and JPEG quality, of similar size, or both; of
every cell as many of each class are kept as the rarer one has. What is kept has the same distribution in both classes.
Nothing is drawn at random: the images kept are those whose path has the smallest hash. Where the classes have no cell
in common (JPEG reals, PNG fakes), the matched set is empty, and that is the finding.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from storage.errors import SettingError
from storage.index import rows_of_set, set_names

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

Match = Literal["jpeg", "size", "jpeg+size"]
_QUALITY_STEP = 5
_SIZES_PER_OCTAVE = 4  # cells of a side are 19 % wide


def matched_sets(index: pa.Table, match: Match) -> dict[str, NDArray[np.int64]]:
    """Return set -> row numbers, ascending, of its matched subset; empty where the classes have nothing in common.

    Args:
        index: usable rows with the columns path, label, sets, format, width, height and jpeg_quality.
        match: what both classes are made equal in.

    Raises:
        SettingError: ``match`` is not known.
    """
    return {name: matched_rows(index, rows_of_set(index, name), match) for name in set_names(index)}


def matched_rows(index: pa.Table, rows: NDArray[np.int64], match: Match) -> NDArray[np.int64]:
    """Return the matched subset of some rows of an index, ascending; see :func:`matched_sets`."""
    if match not in get_args(Match):
        raise SettingError(f"match {match!r} is not known; choose from {', '.join(get_args(Match))}")
    cells: dict[Any, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    taken = index.take(rows).select(["path", "label", "format", "width", "height", "jpeg_quality"])
    for row, facts in zip(rows.tolist(), taken.to_pylist(), strict=True):
        if facts["label"] is not None:
            cells[_cell(facts, match)][facts["label"]].append(row)
    paths = dict(zip(rows.tolist(), taken["path"].to_pylist(), strict=True))
    kept: list[int] = []
    for classes in cells.values():
        fewest = min(len(members) for members in classes)
        for members in classes:
            kept += sorted(members, key=lambda row: _rank(paths[row]))[:fewest]
    return np.array(sorted(kept), dtype=np.int64)


def _cell(facts: dict[str, Any], match: Match) -> tuple[Any, ...]:
    cell: list[Any] = []
    if "jpeg" in match:
        quality = facts["jpeg_quality"]
        cell += [facts["format"], None if quality is None else quality // _QUALITY_STEP]
    if "size" in match:
        cell += [round(float(np.log2(facts[side])) * _SIZES_PER_OCTAVE) for side in ("width", "height")]
    return tuple(cell)


def _rank(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()
