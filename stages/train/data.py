"""What a head is trained on: the features it reads, in memory, split by content into training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stages.train.heads.head import Reads
    from storage.features import FeatureTable

# The hash's first 32 bits, as a share of their range, say on which side an image falls.
_HASH_DIGITS = 8


@dataclass(frozen=True)
class Examples:
    """Images with labels: ``features`` (N, L', D) or (N, E) float16, ``labels`` (N,) float32, on one device."""

    features: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    def batches(self, order: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (features float32, labels) of ``size`` images at a time, in ``order``; the last batch may be short."""
        for rows in torch.split(order, size):
            yield self.features[rows].float(), self.labels[rows]


def held_out_rows(table: FeatureTable, validation_share: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows of ``table`` that take part in training, and which of them are held out for validation.

    Rows of split "train" or of no split take part. An image falls into validation when its content hash says so, so
    that the choice depends on the image alone, and copies of one image never lie on both sides.
    """
    split = np.array(table.index["split"].to_pylist(), dtype=object)
    rows = np.flatnonzero((split == "train") | (split == None))  # noqa: E711 - elementwise
    return rows, _share_of(table.index["sha256"].to_pylist())[rows] < validation_share


def load_examples(
    table: FeatureTable, reads: Reads, *, validation_share: float, device: torch.device
) -> tuple[Examples, Examples]:
    """Return (training, validation) examples, divided by :func:`held_out_rows`.

    Raises:
        DataError: rows lack labels, or one class is missing on a side.
    """
    if table.index["label"].null_count:
        raise DataError(f"{table.directory} holds images without a label; training needs `real` and `fake` folders")
    rows, held_out = held_out_rows(table, validation_share)
    labels = table.index["label"].to_numpy()[rows]
    for side, members in (("training", ~held_out), ("validation", held_out)):
        for label, name in ((0, "real"), (1, "synthetic")):
            if not (labels[members] == label).any():
                raise DataError(
                    f"no {name} image on the {side} side of {table.directory} ({len(rows)} images may be used, "
                    f"validation share {validation_share}); training needs both classes on both sides"
                )

    def examples(members: NDArray[np.bool_]) -> Examples:
        features = table.read(reads.tap, blocks=reads.blocks or None, rows=rows[members])
        return Examples(
            torch.from_numpy(features).to(device), torch.from_numpy(labels[members].astype(np.float32)).to(device)
        )

    return examples(~held_out), examples(held_out)


def _share_of(hashes: list[str]) -> NDArray[np.float64]:
    return np.array([int(digest[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS for digest in hashes], dtype=np.float64)
