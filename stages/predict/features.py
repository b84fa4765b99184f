"""Features that were extracted already: opened for the head of a bundle, and found again by an image file's content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.predict.card import difference
from storage.errors import DataError
from storage.features import FeatureTable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.predict.card import Card
    from storage.sources import Sources
    from storage.spec import FeatureSpec


def open_features(directory: Path, spec: FeatureSpec, *, but_view: bool = False) -> FeatureTable:
    """Open an extracted view for the head that reads ``spec``; ``but_view``: only its backbone has to be the head's.

    Raises:
        DataError: the features are missing or damaged, or made with other settings; the message names these.
    """
    table = FeatureTable.open(directory)
    differing = difference(spec, table.spec, but_view=but_view)
    if differing:
        raise DataError(
            f"{directory} does not fit the head, which is `here`: {differing}; name features that were extracted with "
            "its settings"
        )
    return table


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """What a head reads of the images of one extracted view, by content.

    Attributes:
        table: the view.
        tap: what the head reads.
        blocks: of which blocks; None for the embedding.
        hashes: (N,) sha256 of the images' files, in hex, ascending.
        rows: (N,) their rows in the table.
    """

    table: FeatureTable
    tap: str
    blocks: tuple[int, ...] | None
    hashes: NDArray[np.bytes_]
    rows: NDArray[np.int64]

    @classmethod
    def open(cls, directory: Path, card: Card) -> CachedFeatures:
        """Open ``directory`` for the head of a bundle.

        Raises:
            DataError: as :func:`open_features`, or they lack what the head reads.
        """
        table, blocks = open_features(directory, card.spec), card.blocks or None
        table.read(card.tap, blocks=blocks, rows=slice(0, 0))  # says what is lacking
        hashes = np.array(table.index["sha256"].to_pylist(), dtype="S64")
        rows = np.argsort(hashes, kind="stable")
        return cls(table, card.tap, blocks, hashes[rows], rows)

    def find(self, sources: Sources, path: str) -> NDArray[np.float16] | None:
        """Return what the head reads of the image at ``path``, or None where it was not extracted or cannot be read."""
        try:
            wanted = hashlib.sha256(sources.read(path)).hexdigest().encode()
        except (OSError, DataError):
            return None
        place = int(np.searchsorted(self.hashes, wanted))
        if place == len(self.hashes) or self.hashes[place] != wanted:
            return None
        found: NDArray[np.float16] = self.table.read(self.tap, blocks=self.blocks, rows=self.rows[place : place + 1])[0]
        return found
