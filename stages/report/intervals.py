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
    REPLICATES,
    Difference,
    Resampler,
    difference,
    draw_counts,
    holm,
    interval,
    of_trainings,
)
from stages.measure.metrics import METRICS, shown_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stages.report.results import NamedSet, Results

COMPARED = shown_in("tests")


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


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Replicates of a study's results, and what is read from them.

    Attributes:
        results: what was measured.
        replicates: (head, set) -> metric -> (R,), means over seeds.
    """

    results: Results
    replicates: Mapping[tuple[str, NamedSet], Mapping[str, NDArray[np.float64]]]

    def of_set(self, head: str, tested: NamedSet, metric: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a metric of a set; None where it is undefined or has none."""
        value = self.results.of_set(head, tested, metric).value
        return self._interval(head, metric, [tested], value)

    def of_sets(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets; None when a set in it has none."""
        value = self.results.of_sets(head, metric, names).value
        return self._interval(head, metric, self._covered(head, metric, names), value)

    def of_method(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets that another training on other images may give, or None.

        It holds the spread over seeds beside that over images; None also where the head has a single seed, or all
        seeds agree.
        """
        mean = self.results.of_sets(head, metric, names)
        covered = self._covered(head, metric, names)
        replicates = self._replicates(head, metric, covered)
        if mean.value is None or not mean.std or replicates is None:
            return None
        by_set = [self.results.values(head, tested, metric) for tested in covered]
        by_seed = [sum(values) / len(values) for values in zip(*by_set, strict=True)]
        found = of_trainings(mean.value, float(replicates.var()), by_seed)
        return max(found.low, 0.0), min(found.high, 1.0)

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        """Compare pairs of heads on every set that both have scored and that has both classes: one table of tests."""
        compared = []
        for head, other in pairs:
            for metric in COMPARED:
                for tested in self.results.sets:
                    mine, theirs = (self._replicates(one, metric, [tested]) for one in (head, other))
                    if mine is None or theirs is None:
                        continue
                    values = [self.results.values(one, tested, metric) for one in (head, other)]
                    ours, others = ([value for value in of if not np.isnan(value)] for of in values)
                    found = difference(metric, ours, others, mine - theirs, self.results.size(tested))
                    of = "methods" if min(len(ours), len(others)) > 1 else "weights"
                    compared.append(Comparison(head, other, tested, metric, found, found.p, of))
        corrected = holm([each.found.p for each in compared])
        return [each._replace(p_holm=p) for each, p in zip(compared, corrected, strict=True)]

    def _interval(
        self, head: str, metric: str, sets: Sequence[NamedSet], value: float | None
    ) -> tuple[float, float] | None:
        replicates = self._replicates(head, metric, sets)
        if value is None or replicates is None:
            return None
        return interval(metric, value, replicates, [self.results.size(tested) for tested in sets])

    def _covered(self, head: str, metric: str, names: Sequence[NamedSet]) -> list[NamedSet]:
        return [tested for tested in self.results.covered(head, metric) if tested in names]

    def _replicates(self, head: str, metric: str, sets: Sequence[NamedSet]) -> NDArray[np.float64] | None:
        """Return the replicates (R,) of the mean over sets; None when one of them has none."""
        columns = [self.replicates.get((head, tested), {}).get(metric) for tested in sets]
        found = [column for column in columns if column is not None and not np.isnan(column).any()]
        if not found or len(found) < len(columns) or not METRICS[metric].interval:
            return None
        mean: NDArray[np.float64] = np.mean(found, axis=0)
        return mean


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
    found: dict[tuple[str, NamedSet], dict[str, NDArray[np.float64]]] = {}
    for corpus, sample in results.samples.items():
        scored = {head: seeds for head in heads or results.heads if (seeds := sample.seeds(head))}
        both = [tested for tested in results.sets if tested.corpus == corpus and all(sample.size(tested.name))]
        rows = {tested: sample.members[tested.name] for tested in both}
        resamplers = {
            (head, tested): [
                Resampler(sample.label[own], sample.logits[head, s][own], results.thresholds.get((head, s)))
                for s in seeds
            ]
            for tested, own in rows.items()
            for head, seeds in scored.items()
        }
        parts: dict[tuple[str, NamedSet], list[dict[str, NDArray[np.float64]]]] = defaultdict(list)
        draws = (seed, zlib.crc32(corpus.encode()))
        for counts in draw_counts(sample.strata(), replicates=replicates, seed=draws) if resamplers else ():
            drawn = {tested: counts[:, own] for tested, own in rows.items()}
            for (head, tested), of_seeds in resamplers.items():
                by_seed = [resampler.metrics(drawn[tested]) for resampler in of_seeds]
                parts[head, tested].append({m: np.mean([one[m] for one in by_seed], axis=0) for m in by_seed[0]})
        for place, batches in parts.items():
            found[place] = {metric: np.concatenate([batch[metric] for batch in batches]) for metric in batches[0]}
    return Uncertainty(results, found)
