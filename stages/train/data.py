"""Which images train a head and which choose its best epoch, and their features in all views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from stages.heads.training import HELD_OUT
from stages.train.feed import Feed
from storage.errors import DataError
from storage.features import FeatureTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from stages.heads.head import Reads
    from stages.heads.training import TrainSettings
    from storage.spec import FeatureSpec

# The hash's first 32 bits, as a share of their range, say on which side an image falls.
_HASH_DIGITS = 8


@dataclass(frozen=True)
class Split:
    """Row numbers of a feature table, ascending, and in words what decided them."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    rule: str


@dataclass(frozen=True)
class TrainingData:
    """An extracted corpus opened for training: its views, the view that validates, and who is on which side."""

    views: tuple[FeatureTable, ...]
    validation_view: FeatureTable
    split: Split

    @classmethod
    def open(cls, views: Sequence[Path], validation_view: Path, settings: TrainSettings) -> TrainingData:
        """Open the directories of the views.

        Raises:
            DataError: features are missing or damaged, views do not belong together, or an image has no label or a
                class no image.
        """
        opened = {directory: FeatureTable.open(directory) for directory in dict.fromkeys([*views, validation_view])}
        first, *others = opened.values()
        for other in others:
            _check_same_images(first, other)
        return cls(tuple(opened[view] for view in views), opened[validation_view], split_rows(first, settings))

    def feeds(self, stored: Reads, device: torch.device, budget: int) -> tuple[Feed, Feed]:
        """Return the training and the validation feed of what heads read; ``budget`` bytes are for both together.

        Validation reads its images in the order of the disk, once an epoch: on a CPU it needs no memory of its own.
        """
        share = budget // 2 if device.type == "cuda" else 0
        validation = Feed([self.validation_view], self.split.validation, stored, device=device, budget=share)
        left = budget - validation.resident_bytes
        return Feed(self.views, self.split.training, stored, device=device, budget=left), validation


def split_rows(table: FeatureTable, settings: TrainSettings) -> Split:
    """Return the rows that train and the rows that choose the best epoch, as ``settings.validation`` says.

    Raises:
        DataError: images lack a label, or a class is missing on a side.
    """
    rows, chosen = held_out_rows(table, settings.validation_share)
    if settings.validation == HELD_OUT:
        split = Split(
            rows[~chosen],
            rows[chosen],
            f"a share of {settings.validation_share} of the training images, by content hash",
        )
    else:
        of_split = pc.fill_null(pc.equal(table.index["split"], settings.validation), False)
        rule = f"split {settings.validation!r} of the corpus"
        if settings.validation == "test":
            rule += ": the best epoch is chosen on test images, as the LTD authors do"
        split = Split(rows, np.flatnonzero(of_split.to_numpy()), rule)
    for side, members in (("training", split.training), ("validation", split.validation)):
        labels = table.index["label"].take(members)
        if labels.null_count:
            raise DataError(f"{table.directory} holds images without a label; training needs `real` and `fake` folders")
        for label, name in ((0, "real"), (1, "synthetic")):
            if not (labels.to_numpy() == label).any():
                raise DataError(
                    f"no {name} image on the {side} side of {table.directory} ({len(members)} images there; validation "
                    f"is {split.rule}); training needs both classes on both sides"
                )
    return split


def held_out_rows(table: FeatureTable, validation_share: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows that training may use, and which of them it holds out (same length).

    Rows of split "train" may be used or, where the corpus has none, those of no split. An image is held out when its
    content hash says so: the choice depends on the image alone, and copies of one image never lie on both sides.
    """
    split = table.index["split"]
    usable = pc.fill_null(pc.equal(split, "train"), False)
    if not pc.any(usable).as_py():
        usable = pc.is_null(split)
    rows = np.flatnonzero(usable.to_numpy())
    digests = table.index["sha256"].take(rows).to_pylist()
    share = np.array([int(digest[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS for digest in digests], dtype=np.float64)
    return rows, share < validation_share


def backbone_difference(first: FeatureSpec, other: FeatureSpec) -> str:
    """Say in which settings of backbone and arithmetic two sets of features differ; empty where heads fit both.

    Geometry, augmentation and what else is stored may differ: training crops at random and evaluation the centre.
    """

    def backbone(spec: FeatureSpec) -> FeatureSpec:
        return replace(spec, view={"decoder": spec.view.get("decoder")}, taps=(), stored_blocks=(), grid=None)

    return backbone(first).difference(backbone(other))


def _check_same_images(first: FeatureTable, other: FeatureTable) -> None:
    difference = backbone_difference(first.spec, other.spec)
    if difference:
        raise DataError(
            f"{first.directory} and {other.directory} are no views of one corpus: they were made with other settings "
            f"({difference}); extract the corpus again"
        )
    if not first.index["path"].equals(other.index["path"]):
        raise DataError(
            f"{first.directory} ({len(first)} images) and {other.directory} ({len(other)}) do not hold the same "
            "images; extract all views of the corpus again"
        )
