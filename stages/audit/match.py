"""Format-matched subsets of test sets, so that a number without the file bias can stand beside the raw one.

Real and synthetic images of a set are put into cells of equal format and JPEG quality, of similar size, or both; of
every cell as many of each class are kept as the rarer one has. What is kept has the same distribution in both classes.
Nothing is drawn at random: the images kept are those whose path has the smallest hash. Where the classes have no cell
in common (JPEG reals, PNG fakes), the matched set is empty, and that is the finding.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, get_args

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
    taken = index.take(rows)
    facts = []
    if "jpeg" in match:
        facts.append(taken["format"].combine_chunks().dictionary_encode().indices.to_numpy())
        facts.append(taken["jpeg_quality"].fill_null(-_QUALITY_STEP).to_numpy() // _QUALITY_STEP)
    if "size" in match:
        facts += [np.rint(np.log2(taken[side].to_numpy()) * _SIZES_PER_OCTAVE) for side in ("width", "height")]
    cells, cell = np.unique(np.stack(facts, axis=1), axis=0, return_inverse=True)
    label = taken["label"].fill_null(-1).to_numpy()
    fewest = np.minimum(*(np.bincount(cell[label == number], minlength=len(cells)) for number in (0, 1)))
    rank = np.array([hashlib.sha256(path.encode()).hexdigest() for path in taken["path"].to_pylist()], str)
    kept = []
    for number in (0, 1):
        members = np.flatnonzero(label == number)
        members = members[np.lexsort((rank[members], cell[members]))]
        place = np.arange(len(members)) - np.searchsorted(cell[members], cell[members])  # in its cell
        kept.append(members[place < fewest[cell[members]]])
    matched: NDArray[np.int64] = np.sort(rows[np.concatenate(kept)])
    return matched
