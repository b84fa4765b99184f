"""The corpora that a sweep scores its heads on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import average_precision_score

from stages.train.batches import FeatureBatches
from stages.train.data import backbone_difference
from stages.train.loop import logits_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.index import set_names
from storage.manifest import evaluation_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from stages.heads.head import Head, HeadInput
    from stages.reporter import Reporter

Row = dict[str, Any]
MEAN = "mean of sets"
_BATCH = 1024


@dataclass
class TestCorpus:
    """One corpus view: its table, and its test sets that have both classes, as row numbers."""

    table: FeatureTable
    sets: Mapping[str, NDArray[np.int64]]

    @classmethod
    def open(cls, directory: Path, trained: FeatureTable, reporter: Reporter) -> TestCorpus:
        """Open a view that heads trained on ``trained`` can score.

        Raises:
            DataError: it cannot be scored by them, holds images without a label, or no set has both classes.
        """
        table = FeatureTable.open(directory)
        difference = backbone_difference(trained.spec, table.spec)
        if difference:
            raise DataError(f"{directory} cannot be scored by heads trained on {trained.directory}: {difference}")
        if table.index["label"].null_count:
            raise DataError(f"{directory} holds images without a label, which cannot be evaluated")
        labels = table.index["label"].to_numpy()
        tested = evaluation_rows(table.index)
        names = set_names(table.index.take(tested))
        sets = {name: np.intersect1d(table.rows_of_set(name), tested) for name in names} or {table.corpus: tested}
        both = {name: rows for name, rows in sets.items() if len(np.unique(labels[rows])) == 2}
        if not both:
            raise DataError(f"no test set of {directory} has images of both classes")
        if len(both) < len(sets):
            reporter.warn(
                f"{directory}: sets of one class have no accuracy or AP here: {', '.join(sets.keys() - both)}"
            )
        return cls(table, both)

    def feed(self, reads: HeadInput, device: torch.device, budget: int) -> FeatureBatches:
        """Return a feed of all its images."""
        return FeatureBatches([self.table], np.arange(len(self.table)), reads, device=device, budget=budget)

    def score(self, head: Head, feed: FeatureBatches) -> list[Row]:
        """Accuracy at logit 0 and average precision of a head on each set, and their means in a last row."""
        logits, labels = logits_of(head, feed, _BATCH).cpu().numpy(), feed.labels.cpu().numpy()
        rows: list[Row] = [
            {
                "corpus": self.table.corpus,
                "set": name,
                "images": len(members),
                "accuracy": float(((logits[members] > 0) == (labels[members] > 0.5)).mean()),
                "ap": float(average_precision_score(labels[members], logits[members])),
            }
            for name, members in self.sets.items()
        ]
        mean = {key: float(np.mean([row[key] for row in rows])) for key in ("accuracy", "ap")}
        images = sum(row["images"] for row in rows)
        return [*rows, {"corpus": self.table.corpus, "set": MEAN, "images": images, **mean}]
