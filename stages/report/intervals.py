"""How sure the numbers are: bootstrap intervals over images, and paired tests between heads.

Every replicate draws images once and measures all heads and sets on them, so that differences between heads, and means
over sets that share their real images, have the right spread. A value is the mean over seeds, and so is a replicate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.evaluate.bootstrap import BOOTSTRAPPED, REPLICATES, Resampler, draw_counts, interval
from stages.evaluate.paired import bootstrap_p, holm, mcnemar_p
from stages.report.results import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stages.report.results import NamedSet, Results
    from stages.report.sample import Sample

COMPARED = ("ap", "roc_auc", "accuracy")

# (head, set) -> (R, len(BOOTSTRAPPED)), means over seeds
Replicates = dict[tuple[str, "NamedSet"], "NDArray[np.float64]"]


@dataclass(frozen=True)
class Comparison:
    """One head against another on one set.

    Attributes:
        head: the one.
        other: the other.
        tested: the set.
        metric: one of ``COMPARED``.
        difference: value of ``head`` minus that of ``other``, each a mean over seeds.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided p value of "no difference": McNemar's exact test for accuracy (of ``seed``), paired bootstrap else.
        p_holm: the same, Holm-corrected over the sets that the two heads are compared on.
        seed: the seed whose decisions McNemar's test compares; None for the other metrics.
    """

    head: str
    other: str
    tested: NamedSet
    metric: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seed: int | None


@dataclass(frozen=True)
class Uncertainty:
    """Replicates of a study's results, and what is read from them."""

    results: Results
    replicates: Mapping[tuple[str, NamedSet], NDArray[np.float64]]

    def of_set(self, entry: Entry, tested: NamedSet, metric: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a metric of a set; None where it is undefined or not bootstrapped."""
        found = self._column((entry.head, tested), metric)
        if found is None or self.results.of_set(entry, tested, metric).value is None:
            return None
        return interval(found)

    def of_sets(self, entry: Entry, metric: str, names: Sequence[NamedSet] | None = None) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets (all, or those named); None when a set in it has none."""
        mean = self.results.of_sets(entry, metric, names)
        listed = self.results.sets if names is None else names
        sets = [tested for tested in listed if self._in_mean(entry, tested, metric)]
        columns = [self._column((entry.head, tested), metric) for tested in sets]
        found = [column for column in columns if column is not None]
        if mean.value is None or len(found) < len(sets) or len(found) != mean.count:
            return None
        return interval(np.mean(found, axis=0))

    def compare(self, head: str, other: str) -> list[Comparison]:
        """Compare two heads on every set that both have scored and that has both classes."""
        found = []
        for metric in COMPARED:
            pairs = [(tested, self._difference(head, other, tested, metric)) for tested in self.results.sets]
            tested_pairs = [(tested, draws) for tested, draws in pairs if draws is not None]
            tests = [self._test(head, other, tested, metric, draws) for tested, draws in tested_pairs]
            corrected = holm([p for p, _ in tests])
            for (tested, draws), (p, seed), p_holm in zip(tested_pairs, tests, corrected, strict=True):
                values = [self.results.of_set(Entry(one), tested, metric).value for one in (head, other)]
                difference = (values[0] or 0.0) - (values[1] or 0.0)
                low, high = interval(draws)
                found.append(Comparison(head, other, tested, metric, difference, low, high, p, p_holm or 0.0, seed))
        return found

    def _column(self, place: tuple[str, NamedSet], metric: str) -> NDArray[np.float64] | None:
        if place not in self.replicates or metric not in BOOTSTRAPPED:
            return None
        column: NDArray[np.float64] = self.replicates[place][:, BOOTSTRAPPED.index(metric)]
        return None if np.isnan(column).any() else column

    def _in_mean(self, entry: Entry, tested: NamedSet, metric: str) -> bool:
        mean = self.results.of_set(entry, tested, metric)
        return mean.value is not None and mean.count == mean.total

    def _difference(self, head: str, other: str, tested: NamedSet, metric: str) -> NDArray[np.float64] | None:
        mine, theirs = (self._column((one, tested), metric) for one in (head, other))
        return None if mine is None or theirs is None else mine - theirs

    def _test(
        self, head: str, other: str, tested: NamedSet, metric: str, draws: NDArray[np.float64]
    ) -> tuple[float, int | None]:
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
    wanted = [entry.head for entry in results.entries] if heads is None else list(heads)
    for corpus, sample in results.samples.items():
        sets = [tested for tested in results.sets if tested.corpus == corpus and all(sample.size(tested.name))]
        found |= _resample_corpus(results, sample, sets, wanted, draws=(replicates, seed))
    return Uncertainty(results, found)


def _resample_corpus(
    results: Results, sample: Sample, sets: Sequence[NamedSet], heads: Sequence[str], *, draws: tuple[int, int]
) -> Replicates:
    replicates, seed = draws
    resamplers = {}
    for tested in sets:
        rows = sample.members[tested.name]
        for head in heads:
            of_head = [
                Resampler(sample.label[rows], sample.logits[head, number][rows], results.thresholds.get((head, number)))
                for number in sample.seeds(head)
            ]
            if of_head:
                resamplers[head, tested] = of_head
    parts: dict[tuple[str, NamedSet], list[NDArray[np.float64]]] = {place: [] for place in resamplers}
    for counts in draw_counts(sample.strata(), replicates=replicates, seed=seed) if resamplers else ():
        for tested in sets:
            drawn = counts[:, sample.members[tested.name]]
            for head in heads:
                if (head, tested) in resamplers:
                    by_seed = [resampler.metrics(drawn) for resampler in resamplers[head, tested]]
                    parts[head, tested].append(np.mean(by_seed, axis=0))
    return {place: np.concatenate(found) for place, found in parts.items()}
