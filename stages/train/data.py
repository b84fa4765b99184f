"""Which images train a head and which choose its best epoch, and their features in all views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from stages.heads.settings import HELD_OUT
from stages.train.batches import FeatureBatches, union_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import INDEX_NAME, fingerprint, read_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from stages.heads.head import HeadInput
    from stages.heads.settings import TrainSettings
    from storage.spec import FeatureSpec

_HASH_DIGITS = 8  # the hash's first 32 bits, as a share of their range, decide on which side an image falls


@dataclass(frozen=True)
class Split:
    """Row numbers of a feature table, ascending, and the rule that chose them, in words."""

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    rule: str


@dataclass(frozen=True)
class TrainingData:
    """An extracted corpus opened for training: its views, the view that validates, and which image is on which side."""

    views: tuple[FeatureTable, ...]
    validation_view: FeatureTable
    split: Split

    @classmethod
    def open(cls, views: Sequence[Path], validation_view: Path, settings: TrainSettings) -> TrainingData:
        """Open the directories of the views.

        Raises:
            DataError: features are missing or damaged, views do not belong together, an image has no label, or a class
                has no image on one side.
        """
        opened = {directory: FeatureTable.open(directory) for directory in dict.fromkeys([*views, validation_view])}
        first, *others = opened.values()
        for other in others:
            difference = backbone_difference(first.spec, other.spec)
            if not difference and not first.index["path"].equals(other.index["path"]):
                difference = f"not the same images, {len(first)} here, {len(other)} there"
            if difference:
                raise DataError(
                    f"{first.directory} and {other.directory} are no views of one corpus: they were made with other "
                    f"settings or of other images ({difference}); extract all views of the corpus again"
                )
        return cls(tuple(opened[view] for view in views), opened[validation_view], split_rows(first, settings))

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """View -> the hash of all that its index says of images and shards."""
        directories = {table.directory.name: table.directory for table in (*self.views, self.validation_view)}
        return {name: fingerprint(read_index(directory / INDEX_NAME)) for name, directory in directories.items()}

    def provenance(self) -> dict[str, Any]:
        """What head files state of the images that they were trained on."""
        first, split = self.views[0], self.split
        sizes = {"training": len(split.training), "validation": len(split.validation), "unreadable": len(first.failed)}
        return {
            "validation": split.rule,
            "corpus": first.corpus,
            "corpus_index_sha256": self.fingerprints[first.directory.name],
            "view_index_sha256": self.fingerprints,
            "images": sizes,
            "feature_key": first.key,
            "feature_spec": first.spec.to_json(),
        }

    def batches(self, reads: HeadInput, device: torch.device, budget: int) -> tuple[FeatureBatches, FeatureBatches]:
        """Return the images that train and those that validate; ``budget`` bytes are for both together.

        Whether training reads from memory depends on its own features alone, since its order does. Validation reads its
        images in the order of the disk, once an epoch: on a CPU it needs no memory of its own.
        """
        training = FeatureBatches(self.views, self.split.training, reads, device=device, budget=budget)
        left = budget - training.resident_bytes if device.type == "cuda" else 0
        return training, FeatureBatches(
            [self.validation_view], self.split.validation, reads, device=device, budget=left
        )

    def shared(
        self, reads: Sequence[HeadInput], device: torch.device, budget: int
    ) -> Iterator[tuple[tuple[FeatureBatches, FeatureBatches], list[int]]]:
        """Yield batches as :meth:`batches` does, with the numbers of the heads that are trained on them.

        All that read one tap share its features, in memory or from disk; but where these do not fit the budget, heads
        whose own blocks do are trained on those.
        """
        for tap in dict.fromkeys(read.tap for read in reads):
            left = [number for number, read in enumerate(reads) if read.tap == tap]
            every = self.batches(union_of([reads[number] for number in left]), device, budget)
            for read in () if every[0].resident_bytes else dict.fromkeys(reads[number] for number in left):
                own = self.batches(read, device, budget)
                if own[0].resident_bytes:
                    yield own, [number for number in left if reads[number] == read]
                    left = [number for number in left if reads[number] != read]
            if left:
                yield every, left


def split_rows(table: FeatureTable, settings: TrainSettings) -> Split:
    """Return the rows that train and the rows that choose the best epoch, as ``settings.validation`` says.

    Rows of split "train" train or, where the corpus has none, those of no split. Held out of them is an image whose
    content hash says so: the choice depends on the image alone, and copies of one image never lie on both sides.

    Raises:
        DataError: images lack a label, or a class is missing on a side.
    """
    splits = table.index["split"]
    usable = pc.fill_null(pc.equal(splits, "train"), False)
    if not pc.any(usable).as_py():
        usable = pc.is_null(splits)
    rows = np.flatnonzero(usable.to_numpy())
    if settings.validation == HELD_OUT:
        digests = table.index["sha256"].take(rows).to_pylist()
        share = np.array([int(digest[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS for digest in digests], dtype=np.float64)
        held_out = share < settings.validation_share
        rule = f"a share of {settings.validation_share} of the training images, by content hash"
        split = Split(rows[~held_out], rows[held_out], rule)
    else:
        of_split = pc.fill_null(pc.equal(splits, settings.validation), False)
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


def backbone_difference(first: FeatureSpec, other: FeatureSpec) -> str:
    """Say in which settings of backbone and arithmetic two sets of features differ; empty where heads fit both.

    Geometry, augmentation and what else is stored may differ: training crops at random and evaluation the centre.
    """

    def backbone(spec: FeatureSpec) -> FeatureSpec:
        return replace(spec, view={"decoder": spec.view.get("decoder")}, taps=(), stored_blocks=(), patches=None)

    return backbone(first).difference(backbone(other))
