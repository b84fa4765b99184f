"""All measured results of a study: one line per head, one column per test set, and how sure the numbers are.

Every replicate draws images once and measures all heads and sets on them, so that differences between heads, and means
over sets that share their real images, have the right spread. A value is the mean over seeds, and so is a replicate.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.measure.bootstrap import Difference, difference, interval, of_trainings
from stages.measure.frame import Mean, mean_of, mean_over_sets
from stages.measure.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from stages.evaluate.scores import ScoreCard, Scores

NOT_SCORED = "not scored"


class NamedSet(NamedTuple):
    """A column of the tables: a named test set of a corpus."""

    corpus: str
    name: str

    @property
    def key(self) -> str:
        """``corpus/name``: unique in a study."""
        return f"{self.corpus}/{self.name}"


class BySeed(NamedTuple):
    """A metric of a set, seed by seed: its values, NaN where undefined, and then why."""

    seeds: Sequence[int] = ()
    values: Sequence[float] = ()
    why: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a study. A head's ``view`` is the degraded view it was tested on; none: undegraded images.

    Attributes:
        heads: lines of the tables, in order.
        views: names of the degraded views, in order of name.
        sets: columns of the tables, in order.
        cards: what each scores file is about, in order of the tables' heads, then corpus, view, seed.
        frame: a row for each head, view, seed, set and metric, in that order, as ``measure_sets`` gives them; where a
            seed has no scores of a set, ``why`` is "not scored".
        thresholds: (head, seed) -> threshold on the logit from held-out images of its training domain.
        images: corpus -> its undegraded images, as in the first of their scores files.
        logits: corpus -> (head, seed) -> (N,) logits of these images.
        missing: sets that the study asks for and that have no image: every mean over sets says that it lacks them.
        replicates: (head, set) -> metric -> (R,) bootstrapped values, means over seeds; of sets with both classes.
    """

    heads: tuple[str, ...]
    views: tuple[str, ...]
    sets: tuple[NamedSet, ...]
    cards: tuple[ScoreCard, ...]
    frame: pd.DataFrame
    thresholds: Mapping[tuple[str, int], float]
    images: Mapping[str, Scores]
    logits: Mapping[str, Mapping[tuple[str, int], NDArray[np.float64]]]
    missing: tuple[NamedSet, ...]
    replicates: Mapping[tuple[str, NamedSet], Mapping[str, NDArray[np.float64]]]

    @cached_property
    def _measured(self) -> Mapping[tuple[str, str, str, str, str], BySeed]:
        """(head, view, corpus, set, metric) -> what was measured there."""
        places = self.frame.groupby(["head", "view", "corpus", "set", "metric"], sort=False)
        lists = places[["seed", "value", "why"]].agg(list)
        return {place: BySeed(*columns) for place, *columns in lists.itertuples()}

    @cached_property
    def _scored(self) -> Collection[tuple[str, str, str]]:
        scored = self.frame.loc[self.frame["why"] != NOT_SCORED, ["head", "corpus", "view"]]
        return set(scored.itertuples(index=False, name=None))

    def by_seed(self, head: str, tested: NamedSet, metric: str, view: str = "") -> BySeed:
        """Return a metric of a set seed by seed; no seed where the head has not scored the view."""
        return self._measured.get((head, view, *tested, metric), BySeed())

    def seeds(self, head: str) -> tuple[int, ...]:
        """Return the seeds of a head, ascending."""
        return tuple(self.by_seed(head, self.sets[0], next(iter(METRICS))).seeds)

    def scored(self, head: str, corpus: str, view: str = "") -> bool:
        """Say whether any seed of a head has scored a test set of a view of a corpus."""
        return (head, corpus, view) in self._scored

    def of_set(self, head: str, tested: NamedSet, metric: str, view: str = "") -> Mean:
        """Return mean and spread over seeds."""
        return mean_of(self.by_seed(head, tested, metric, view).values)

    def of_sets(self, head: str, metric: str, names: Sequence[NamedSet], view: str = "") -> Mean:
        """Return the mean over sets, its spread over seeds, and how many of the sets it covers."""
        return mean_over_sets([self.by_seed(head, tested, metric, view).values for tested in names])

    def of_corpus(self, head: str, metric: str, corpus: str, view: str = "") -> Mean:
        """Return the mean over the test sets of a corpus: papers report each benchmark by itself."""
        return self.of_sets(head, metric, self.sets_of(corpus), view)

    @property
    def corpora(self) -> tuple[str, ...]:
        """The benchmarks: corpora with a test set, in the order of the columns."""
        return tuple(dict.fromkeys(tested.corpus for tested in self.sets))

    def sets_of(self, corpus: str) -> tuple[NamedSet, ...]:
        """Return the sets that the mean of a corpus is asked to cover, those without images last."""
        return tuple(tested for tested in (*self.sets, *self.missing) if tested.corpus == corpus)

    def covered(self, head: str, metric: str, names: Sequence[NamedSet], view: str = "") -> list[NamedSet]:
        """Return those of the sets that a mean over them covers: with a value for every seed."""
        values = {tested: self.by_seed(head, tested, metric, view).values for tested in names}
        return [tested for tested in names if len(values[tested]) and not np.isnan(values[tested]).any()]

    def coverage(self, corpus: str) -> str:
        """Say how many of the sets asked for a corpus has: "6 of 8 sets"."""
        asked = self.sets_of(corpus)
        return f"{len(set(asked) & set(self.sets))} of {len(asked)} sets"

    def column_names(self) -> dict[NamedSet, str]:
        """Name the columns: the set's name, with its corpus in front when the study tests several corpora."""
        return {tested: tested.key if len(self.corpora) > 1 else tested.name for tested in self.sets}

    def size(self, tested: NamedSet) -> tuple[int, int]:
        """Return (real, synthetic) image counts of a set; they are the same for every head that scored it."""
        images = self.images[tested.corpus]
        n_fake = int(images.label[images.members[tested.name]].sum())
        return len(images.members[tested.name]) - n_fake, n_fake

    def why_undefined(self, head: str, tested: NamedSet, metric: str) -> str:
        """Return why a metric of a set is undefined for some or all seeds of a head; empty when it is not."""
        measured = self.by_seed(head, tested, metric)
        reasons: dict[str, list[int]] = defaultdict(list)
        for seed, reason in zip(measured.seeds, measured.why, strict=True):
            if reason:
                reasons[reason].append(seed)
        if list(reasons.values()) == [measured.seeds]:
            return next(iter(reasons))
        return "; ".join(f"{reason} (seed {', '.join(map(str, seeds))})" for reason, seeds in reasons.items())

    def interval(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval over images of the mean over sets; None when one of them has none."""
        mean, covered = self.of_sets(head, metric, names), self.covered(head, metric, names)
        replicates = self._replicates_of(head, metric, covered)
        if mean.value is None or replicates is None:
            return None
        return interval(metric, mean.value, replicates, [self.size(tested) for tested in covered])

    def interval_of_method(self, head: str, metric: str, names: Sequence[NamedSet]) -> tuple[float, float] | None:
        """Return the 95 % interval of the mean over sets that another training on other images may give, or None.

        It holds the spread over seeds beside that over images; None also where the head has a single seed, or all
        seeds agree.
        """
        mean, covered = self.of_sets(head, metric, names), self.covered(head, metric, names)
        replicates = self._replicates_of(head, metric, covered)
        if mean.value is None or not mean.std or replicates is None:
            return None
        ends = of_trainings(mean.value, float(replicates.var()), self._seed_means(head, metric, covered))
        return max(ends.low, 0.0), min(ends.high, 1.0)

    def gain(self, head: str, other: str, metric: str, names: Sequence[NamedSet]) -> Difference | None:
        """Return the difference of two heads' means over the sets that both cover; None where it has no interval."""
        covered = self.covered(head, metric, self.covered(other, metric, names))
        mine, theirs = (self._replicates_of(one, metric, covered) for one in (head, other))
        if mine is None or theirs is None:
            return None
        ours, others = (self._seed_means(one, metric, covered) for one in (head, other))
        return difference(metric, ours, others, mine - theirs, [self.size(tested) for tested in covered])

    def _seed_means(self, head: str, metric: str, sets: Sequence[NamedSet]) -> list[float]:
        by_set = [self.by_seed(head, tested, metric).values for tested in sets]
        return [sum(values) / len(values) for values in zip(*by_set, strict=True)]

    def _replicates_of(self, head: str, metric: str, sets: Sequence[NamedSet]) -> NDArray[np.float64] | None:
        """Return the replicates (R,) of the mean over sets; None when one of them has none."""
        if not sets or not METRICS[metric].interval:
            return None
        columns = [self.replicates.get((head, tested), {}).get(metric) for tested in sets]
        defined = [column for column in columns if column is not None and not np.isnan(column).any()]
        return np.asarray(np.mean(defined, axis=0)) if len(defined) == len(columns) else None
