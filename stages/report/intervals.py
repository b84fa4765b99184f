"""How sure the numbers are: bootstrap intervals over images, and paired tests between heads.

Every replicate draws images once and measures all heads and sets on them, so that differences between heads, and means
over sets that share their real images, have the right spread. A value is the mean over seeds, and so is a replicate.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.evaluate.uncertainty import (
    BOOTSTRAPPED,
    REPLICATES,
    Resampler,
    bootstrap_p,
    draw_counts,
    holm,
    interval,
    mcnemar_p,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stages.report.results import NamedSet, Results

COMPARED = ("ap", "roc_auc", "accuracy")

# (head, set) -> (R, len(BOOTSTRAPPED)), means over seeds
Replicates = dict[tuple[str, "NamedSet"], "NDArray[np.float64]"]


class Comparison(NamedTuple):
    """One head against another on one set.

    Attributes:
        tested: the set.
        metric: one of ``COMPARED``.
        difference: value of the head minus that of the other, means over seeds, and the ends of its 95 % interval.
        p: two-sided p value of "no difference": McNemar's exact test for accuracy (of ``seed``), paired bootstrap else.
        p_holm: the same, Holm-corrected over the sets that the two heads are compared on.
        seed: the seed whose decisions McNemar's test compares; None for the other metrics.
    """

    tested: NamedSet
    metric: str
    difference: tuple[float, float, float]
    p: float
    p_holm: float
    seed: int | None


@dataclass(frozen=True)
class Uncertainty:
    """Replicates of a study's results, and what is read from them."""

    results: Results
    replicates: Replicates

    def of_set(self, head: str, tested: NamedSet, metric: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a metric of a set; None where it is undefined or not bootstrapped."""
        column = self._column(head, tested, metric)
        if column is None or self.results.of_set(head, tested, metric).value is None:
            return None
        return interval(column)

    def of_sets(self, head: str, metric: str, names: Sequence[NamedSet] | None = None) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets (all, or those named); None when a set in it has none."""
        covered = [t for t in self.results.covered(head, metric) if names is None or t in names]
        columns = [self._column(head, tested, metric) for tested in covered]
        found = [column for column in columns if column is not None]
        return interval(np.mean(found, axis=0)) if found and len(found) == len(covered) else None

    def compare(self, head: str, other: str) -> list[Comparison]:
        """Compare two heads on every set that both have scored and that has both classes."""
        compared = []
        for metric in COMPARED:
            draws: dict[NamedSet, NDArray[np.float64]] = {}
            for tested in self.results.sets:
                mine, theirs = (self._column(one, tested, metric) for one in (head, other))
                if mine is not None and theirs is not None:
                    draws[tested] = mine - theirs
            tests = [self._test(head, other, tested, metric, found) for tested, found in draws.items()]
            corrected = holm([p for p, _ in tests])
            for (tested, found), (p, seed), p_holm in zip(draws.items(), tests, corrected, strict=True):
                values = [self.results.of_set(one, tested, metric).value for one in (head, other)]
                difference = ((values[0] or 0.0) - (values[1] or 0.0), *interval(found))
                compared.append(Comparison(tested, metric, difference, p, p_holm or 0.0, seed))
        return compared

    def _column(self, head: str, tested: NamedSet, metric: str) -> NDArray[np.float64] | None:
        if (head, tested) not in self.replicates or metric not in BOOTSTRAPPED:
            return None
        column: NDArray[np.float64] = self.replicates[head, tested][:, BOOTSTRAPPED.index(metric)]
        return None if np.isnan(column).any() else column

    def _test(
        self, head: str, other: str, tested: NamedSet, metric: str, draws: NDArray[np.float64]
    ) -> tuple[float, int | None]:
        """Return p, and the seed that McNemar's test compares."""
        sample = self.results.samples[tested.corpus]
        common = sorted(set(sample.seeds(head)) & set(sample.seeds(other)))
        if metric != "accuracy" or not common:
            return bootstrap_p(draws), None
        rows = sample.members[tested.name]
        fake = sample.label[rows] == 1
        right = [(sample.logits[one, common[0]][rows] > 0) == fake for one in (head, other)]
        return mcnemar_p(right[0], right[1]), common[0]


def resample(
    results: Results, *, heads: Sequence[str] | None = None, replicates: int = REPLICATES, seed: int = 0
) -> Uncertainty:
    """Bootstrap the sets of a study that have both classes.

    Args:
        results: what was measured.
        heads: of these heads only; None: of all.
        replicates: how many samples of images are drawn.
        seed: of the draws; the same seed gives the same intervals.
    """
    found: Replicates = {}
    for corpus, sample in results.samples.items():
        sets = [tested for tested in results.sets if tested.corpus == corpus and all(sample.size(tested.name))]
        resamplers = {
            tested: {
                head: [
                    Resampler(sample.label[rows], sample.logits[head, s][rows], results.thresholds.get((head, s)))
                    for s in sample.seeds(head)
                ]
                for head in heads or results.heads
                if sample.seeds(head)
            }
            for tested in sets
            for rows in [sample.members[tested.name]]
        }
        parts: dict[tuple[str, NamedSet], list[NDArray[np.float64]]] = defaultdict(list)
        for counts in draw_counts(sample.strata(), replicates=replicates, seed=seed) if resamplers else ():
            for tested, of_heads in resamplers.items():
                drawn = counts[:, sample.members[tested.name]]
                for head, of_seeds in of_heads.items():
                    parts[head, tested].append(np.mean([resampler.metrics(drawn) for resampler in of_seeds], axis=0))
        found |= {place: np.concatenate(batches) for place, batches in parts.items()}
    return Uncertainty(results, found)
