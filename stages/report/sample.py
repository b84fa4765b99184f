"""The images of one corpus view, and what every head says about each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.evaluate.scores import Scores


@dataclass(frozen=True, eq=False)
class Sample:
    """The images of one corpus view in order of path, and what every head and seed says about each of them.

    Attributes:
        source: the scores file that they were first read from.
        corpus: name of the corpus.
        view: name of the view.
        failed: how many images could not be read.
        path: (N,) object, str.
        generator: (N,) object, str or None.
        label: (N,) int8, 0 real, 1 synthetic.
        members: named test set -> its row numbers, ascending.
        logits: (head, seed) -> (N,) float64; of undegraded images.
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

    def strata(self) -> NDArray[np.int64]:
        """Return (N,) a number for each combination of label and test sets."""
        inside = [np.isin(np.arange(len(self)), rows) for rows in self.members.values()]
        numbers: NDArray[np.int64] = np.unique(np.stack([self.label, *inside], axis=1), axis=0, return_inverse=True)[1]
        return numbers

    @classmethod
    def of(cls, scores: Scores) -> Sample:
        """Return the images of a scores file, and no logits yet."""
        card = scores.card
        about = (scores.source, card.corpus, card.view, card.failed)
        return cls(*about, scores.path, scores.generator, scores.label, scores.members)

    def check_same(self, scores: Scores) -> None:
        """Heads and seeds are only comparable on the same images with the same labels in the same sets.

        Raises:
            DataError: these scores are of other images.
        """
        pairs = [(self.path, scores.path), (self.label, scores.label)]
        known = self.members.keys() == scores.members.keys()
        pairs += [(rows, scores.members[name]) for name, rows in self.members.items()] if known else []
        if not known or not all(np.array_equal(one, other) for one, other in pairs):
            raise DataError(
                f"{self.source} and {scores.source} score different images of corpus {self.corpus!r} "
                f"({len(self)} and {len(scores)}), so they cannot be compared; run `ltdpipe evaluate` again for both"
            )
