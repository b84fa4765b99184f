"""The images of one corpus view, and what every head and seed says about each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.evaluate.scores import Scores


@dataclass(frozen=True, eq=False)
class Sample:
    """Images in order of path; every array has length N.

    Attributes:
        source: the scores file that they were first read from.
        corpus: name of the corpus.
        view: name of the view.
        failed: how many images could not be read.
        path: (N,) object, str.
        generator: (N,) object, str or None.
        label: (N,) int8, 0 real, 1 synthetic.
        members: named test set -> its row numbers, ascending.
        logits: (head, seed) -> (N,) float64.
    """

    source: Path
    corpus: str
    view: str
    failed: int
    path: NDArray[np.object_]
    generator: NDArray[np.object_]
    label: NDArray[np.int8]
    members: Mapping[str, NDArray[np.int64]]
    logits: dict[tuple[str, int], NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Scores) -> Sample:
        """Take the images of a scores file, without its scores."""
        order = np.arange(len(scores))
        if len(scores) and not bool(np.all(scores.path[:-1] <= scores.path[1:])):
            order = np.argsort(scores.path)
        return cls(
            source=scores.source,
            corpus=scores.card.corpus,
            view=scores.card.view,
            failed=scores.card.failed,
            path=scores.path[order],
            generator=scores.generator[order],
            label=scores.label[order],
            members=_moved(scores.members, order),
        )

    def __len__(self) -> int:
        return len(self.path)

    @property
    def n_fake(self) -> int:
        """Number of synthetic images."""
        return int((self.label == 1).sum())

    @property
    def in_no_set(self) -> int:
        """Number of images that no test set names."""
        return len(self) - len(np.unique(np.concatenate([np.empty(0, dtype=np.int64), *self.members.values()])))

    def size(self, name: str) -> tuple[int, int]:
        """Return (real, synthetic) image counts of a set."""
        labels = self.label[self.members[name]]
        return int((labels == 0).sum()), int((labels == 1).sum())

    def seeds(self, head: str) -> list[int]:
        """Return the seeds of a head that scored these images, ascending."""
        return sorted(seed for name, seed in self.logits if name == head)

    def mean_logits(self, head: str) -> NDArray[np.float64]:
        """Return (N,) the mean logit over the seeds of a head."""
        logits: NDArray[np.float64] = np.mean([self.logits[head, seed] for seed in self.seeds(head)], axis=0)
        return logits

    def strata(self) -> NDArray[np.int64]:
        """Return (N,) a number for each combination of label and test sets."""
        codes = self.label.astype(np.int64)
        for rows in self.members.values():
            inside = np.zeros(len(self), dtype=np.int64)
            inside[rows] = 1
            # renumbered each time: no number of sets can overflow them
            codes = np.unique(codes * 2 + inside, return_inverse=True)[1]
        return codes


def same_images(sample: Sample, scores: Scores) -> NDArray[np.int64] | None:
    """Return the order of a scores file's rows that gives the sample's images; None when these are not the same.

    Heads and seeds are only comparable on the same images with the same labels in the same sets.
    """
    if len(sample) != len(scores) or sample.members.keys() != scores.members.keys():
        return None
    order = np.arange(len(scores))
    if not np.array_equal(sample.path, scores.path):
        order = np.argsort(scores.path)
    same = np.array_equal(sample.path, scores.path[order]) and np.array_equal(sample.label, scores.label[order])
    members = _moved(scores.members, order) if same else {}
    return order if same and all(np.array_equal(rows, members[name]) for name, rows in sample.members.items()) else None


def _moved(members: Mapping[str, NDArray[np.int64]], order: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return {name: np.sort(rank[rows]) for name, rows in members.items()}
