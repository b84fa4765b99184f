"""Features that were extracted already, found again by the content of an image file."""

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


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """One extracted view, by content hash.

    Attributes:
        table: the view.
        tap: what the head reads.
        blocks: of which blocks; None for the embedding.
        hashes: (N,) sha256 of the images' files, ascending, 32 bytes each.
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
            DataError: the features are missing or damaged, made with other settings than the bundle's, or lack what
                its head reads; the message names it.
        """
        table = FeatureTable.open(directory)
        differing = difference(card.features, table.spec)
        if differing:
            raise DataError(
                f"{directory} cannot be used with this bundle: {differing} (`here` is the bundle); extract with its "
                "settings, or leave --features out"
            )
        blocks = card.blocks or None
        table.read(card.tap, blocks=blocks, rows=slice(0, 0))  # says what is lacking
        hashes = np.array([bytes.fromhex(digest) for digest in table.index["sha256"].to_pylist()], dtype="V32")
        order = np.argsort(hashes.view("S32"), kind="stable")
        return cls(table, card.tap, blocks, hashes[order], order)

    def find(self, sources: Sources, path: str) -> NDArray[np.float16] | None:
        """Return what the head reads of the image at ``path``, or None where it was not extracted or cannot be read."""
        try:
            digest = hashlib.sha256(sources.read(path)).digest()
        except (OSError, DataError):
            return None
        wanted = np.frombuffer(digest, dtype="V32")
        place = int(np.searchsorted(self.hashes.view("S32"), wanted.view("S32")[0]))
        if place == len(self.hashes) or self.hashes[place] != wanted[0]:
            return None
        row = self.table.read(self.tap, blocks=self.blocks, rows=self.rows[place : place + 1])
        found: NDArray[np.float16] = row[0]
        return found
