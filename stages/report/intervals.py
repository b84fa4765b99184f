"""How sure the numbers are: intervals over images, and paired tests between heads.

Every replicate draws images once and measures all heads and sets on them, so that differences between heads, and means
over sets that share their real images, have the right spread. A value is the mean over seeds, and so is a replicate.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
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
from stages.report.table import Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stages.evaluate.scores import Scores
    from stages.report.results import NamedSet, Results
    from stages.report.table import Cell


class Comparison(NamedTuple):
    """One head minus another on one set, by one of the metrics that tests show; values are means over seeds.

    ``p_holm`` is corrected over all comparisons of the table. ``of`` is "methods" where both heads have several seeds,
    else "weights": of these trainings alone.
    """

    head: str
    other: str
    tested: NamedSet
    metric: str
    difference: Difference
    p_holm: float
    of: str

    @property
    def cells(self) -> list[Cell]:
        """Difference, ends of its interval, p, corrected p, and of what they are."""
        ends = [Value(value, signed=True) for value in self.difference[:3]]
        return [*ends, self.difference.p, self.p_holm, self.of]


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
        return self._interval(head, metric, [tested], self.results.of_set(head, tested, metric).value)

    def of_sets(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets; None when a set in it has none."""
        covered = self.results.covered(head, metric, names)
        return self._interval(head, metric, covered, self.results.of_sets(head, metric, names).value)

    def of_method(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets that another training on other images may give, or None.

        It holds the spread over seeds beside that over images; None also where the head has a single seed, or all
        seeds agree.
        """
        mean = self.results.of_sets(head, metric, names)
        covered = self.results.covered(head, metric, names)
        replicates = self._replicates(head, metric, covered)
        if mean.value is None or not mean.std or replicates is None:
            return None
        ends = of_trainings(mean.value, float(replicates.var()), self._seed_means(head, metric, covered))
        return max(ends.low, 0.0), min(ends.high, 1.0)

    def gain(self, head: str, other: str, metric: str, names: Sequence[NamedSet]) -> Difference | None:
        """Return the difference of two heads' means over the sets that both cover; None where it has no interval."""
        covered = self.results.covered(head, metric, self.results.covered(other, metric, names))
        mine, theirs = (self._replicates(one, metric, covered) for one in (head, other))
        if mine is None or theirs is None:
            return None
        ours, others = (self._seed_means(one, metric, covered) for one in (head, other))
        return difference(metric, ours, others, mine - theirs, [self.results.size(tested) for tested in covered])

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        """Compare pairs of heads on every set that both have scored and that has both classes: one table of tests."""
        compared = []
        for pair, metric, tested in product(pairs, shown_in("tests"), self.results.sets):
            mine, theirs = (self._replicates(head, metric, [tested]) for head in pair)
            if mine is not None and theirs is not None:
                values = [np.array(self.results.by_seed(head, tested, metric).values) for head in pair]
                ours, others = (of_head[~np.isnan(of_head)].tolist() for of_head in values)
                found = difference(metric, ours, others, mine - theirs, [self.results.size(tested)])
                of = "methods" if min(len(ours), len(others)) > 1 else "weights"
                compared.append(Comparison(*pair, tested, metric, found, found.p, of))
        corrected = holm([each.difference.p for each in compared])
        return [each._replace(p_holm=p) for each, p in zip(compared, corrected, strict=True)]

    def _seed_means(self, head: str, metric: str, sets: Sequence[NamedSet]) -> list[float]:
        by_set = [self.results.by_seed(head, tested, metric).values for tested in sets]
        return [sum(values) / len(values) for values in zip(*by_set, strict=True)]

    def _interval(
        self, head: str, metric: str, sets: Sequence[NamedSet], value: float | None
    ) -> tuple[float, float] | None:
        replicates = self._replicates(head, metric, sets)
        if value is None or replicates is None:
            return None
        return interval(metric, value, replicates, [self.results.size(tested) for tested in sets])

    def _replicates(self, head: str, metric: str, sets: Sequence[NamedSet]) -> NDArray[np.float64] | None:
        """Return the replicates (R,) of the mean over sets; None when one of them has none."""
        if not sets or not METRICS[metric].interval:
            return None
        columns = [self.replicates.get((head, tested), {}).get(metric) for tested in sets]
        defined = [column for column in columns if column is not None and not np.isnan(column).any()]
        return np.asarray(np.mean(defined, axis=0)) if len(defined) == len(columns) else None


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
    drawn: dict[tuple[str, NamedSet], dict[str, NDArray[np.float64]]] = {}
    for corpus, images in results.images.items():
        both = [tested for tested in results.sets if tested.corpus == corpus and all(results.size(tested))]
        resamplers: dict[tuple[str, NamedSet], list[Resampler]] = defaultdict(list)
        for ((head, of_seed), logits), tested in product(sorted(results.logits[corpus].items()), both):
            if heads is None or head in heads:
                rows, threshold = images.members[tested.name], results.thresholds.get((head, of_seed))
                if np.isnan(logits[rows]).any():
                    continue
                resamplers[head, tested].append(Resampler(images.label[rows], logits[rows], threshold))
        parts: dict[tuple[str, NamedSet], list[dict[str, NDArray[np.float64]]]] = defaultdict(list)
        draws = (seed, zlib.crc32(corpus.encode()))
        for counts in draw_counts(strata(images), replicates=replicates, seed=draws) if resamplers else ():
            of_sets = {tested: counts[:, images.members[tested.name]] for tested in both}
            for (head, tested), of_seeds in resamplers.items():
                by_seed = [resampler.metrics(of_sets[tested]) for resampler in of_seeds]
                parts[head, tested].append({m: np.mean([one[m] for one in by_seed], axis=0) for m in by_seed[0]})
        for place, batches in parts.items():
            drawn[place] = {metric: np.concatenate([batch[metric] for batch in batches]) for metric in batches[0]}
    return Uncertainty(results, drawn)


def strata(images: Scores) -> NDArray[np.int64]:
    """Return (N,) a number for each combination of label and test sets."""
    inside = [np.isin(np.arange(len(images)), rows) for rows in images.members.values()]
    numbers: NDArray[np.int64] = np.unique(np.stack([images.label, *inside], axis=1), axis=0, return_inverse=True)[1]
    return numbers
