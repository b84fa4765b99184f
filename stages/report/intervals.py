"""How sure the numbers are: intervals over images, and paired tests between heads.

Every replicate draws images once and measures all heads and sets on them, so that differences between heads, and means
over sets that share their real images, have the right spread. A value is the mean over seeds, and so is a replicate.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.measure.bootstrap import (
    BOOTSTRAPPED,
    REPLICATES,
    Difference,
    Resampler,
    difference,
    draw_counts,
    holm,
    interval,
    seed_variance,
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
        head: the one.
        other: the other.
        tested: the set.
        metric: one of ``COMPARED``.
        found: value of the head minus that of the other, means over seeds, its 95 % interval and p value.
        p_holm: p, Holm-corrected over all comparisons of the table.
        of: "methods" where both heads have several seeds, else "weights": of these trainings alone.
    """

    head: str
    other: str
    tested: NamedSet
    metric: str
    found: Difference
    p_holm: float
    of: str


@dataclass(frozen=True)
class Uncertainty:
    """Replicates of a study's results, and what is read from them."""

    results: Results
    replicates: Replicates

    def of_set(self, head: str, tested: NamedSet, metric: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a metric of a set; None where it is undefined or not bootstrapped."""
        return self._interval(head, metric, [tested], self.results.of_set(head, tested, metric).value)

    def of_sets(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets; None when a set in it has none."""
        covered = [tested for tested in self.results.covered(head, metric) if tested in names]
        return self._interval(head, metric, covered, self.results.of_sets(head, metric, names).value)

    def of_method(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets that another training on other images may give, or None.

        It holds the spread over seeds beside that over images; None also where the head has a single seed.
        """
        from scipy.stats import t  # noqa: PLC0415 - slow to import

        covered = [tested for tested in self.results.covered(head, metric) if tested in names]
        columns = [self._column(head, tested, metric) for tested in covered]
        value = self.results.of_sets(head, metric, names).value
        over_seeds, freedom = seed_variance(self.results.seed_means(head, metric, names))
        if value is None or not freedom or any(column is None for column in columns):
            return None
        over_images = float(np.mean([column for column in columns if column is not None], axis=0).var())
        variance = over_images + over_seeds
        half = float(t.ppf(0.975, freedom * (variance / over_seeds) ** 2)) * variance**0.5
        return max(value - half, 0.0), min(value + half, 1.0)

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        """Compare pairs of heads on every set that both have scored and that has both classes: one table of tests."""
        compared = []
        for head, other in pairs:
            for metric in COMPARED:
                for tested in self.results.sets:
                    mine, theirs = (self._column(one, tested, metric) for one in (head, other))
                    if mine is None or theirs is None:
                        continue
                    ours, others = (self.results.seed_values(one, tested, metric) for one in (head, other))
                    found = difference(metric, ours, others, mine - theirs, self.results.size(tested))
                    of = "methods" if min(len(ours), len(others)) > 1 else "weights"
                    compared.append(Comparison(head, other, tested, metric, found, found.p, of))
        corrected = holm([each.found.p for each in compared])
        return [each._replace(p_holm=p or 0.0) for each, p in zip(compared, corrected, strict=True)]

    def _interval(
        self, head: str, metric: str, sets: Sequence[NamedSet], value: float | None
    ) -> tuple[float, float] | None:
        columns = [self._column(head, tested, metric) for tested in sets]
        found = [column for column in columns if column is not None]
        if value is None or not found or len(found) < len(sets):
            return None
        return interval(metric, value, np.mean(found, axis=0), [self.results.size(tested) for tested in sets])

    def _column(self, head: str, tested: NamedSet, metric: str) -> NDArray[np.float64] | None:
        if (head, tested) not in self.replicates or metric not in BOOTSTRAPPED:
            return None
        column: NDArray[np.float64] = self.replicates[head, tested][:, BOOTSTRAPPED.index(metric)]
        return None if np.isnan(column).any() else column


def resample(
    results: Results, *, heads: Sequence[str] | None = None, replicates: int = REPLICATES, seed: int = 0
) -> Uncertainty:
    """Bootstrap the sets of a study that have both classes.

    Args:
        results: what was measured.
        heads: of these heads only; None: of all.
        replicates: how many samples of images are drawn.
        seed: of the draws; the same seed gives the same intervals. Each corpus has draws of its own.
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
        draws = (seed, zlib.crc32(corpus.encode()))
        for counts in draw_counts(sample.strata(), replicates=replicates, seed=draws) if resamplers else ():
            for tested, of_heads in resamplers.items():
                drawn = counts[:, sample.members[tested.name]]
                for head, of_seeds in of_heads.items():
                    parts[head, tested].append(np.mean([resampler.metrics(drawn) for resampler in of_seeds], axis=0))
        found |= {place: np.concatenate(batches) for place, batches in parts.items()}
    return Uncertainty(results, found)
