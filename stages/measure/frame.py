"""Scores -> one tidy frame of everything measured, and means that say how many of how many values they cover."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import pandas as pd

from stages.measure.metrics import measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stages.evaluate.scores import Scores

COLUMNS = ("head", "seed", "corpus", "set", "view", "metric", "value", "why", "n_real", "n_fake")


@dataclass(frozen=True)
class Mean:
    """The mean of ``count`` defined values of ``total``, and their spread (ddof 1); None where there is none."""

    value: float | None
    std: float | None
    count: int
    total: int


def measure_sets(scores: Scores, *, threshold: float | None = None) -> pd.DataFrame:
    """Measure every named test set of a scores file; rows that name no set are in none.

    A row for each set, in order of name, and metric: ``value``, NaN where it is undefined, and then ``why``. The other
    arguments are those of :func:`stages.measure.metrics.measure`.
    """
    card, rows = scores.card, []
    for name, members in scores.members.items():
        labels = scores.label[members]
        sizes = int((labels == 0).sum()), int((labels == 1).sum())
        found = measure(labels, scores.logit[members], threshold=threshold)
        for metric, value in found.items():
            pair = (math.nan, value) if isinstance(value, str) else (value, "")
            rows.append((card.head, card.seed, card.corpus, name, card.view, metric, *pair, *sizes))
    return pd.DataFrame(rows, columns=COLUMNS)


def mean_of(values: Iterable[float]) -> Mean:
    """Return the mean and spread of the values that are not NaN, exactly rounded: their order changes nothing."""
    every = list(values)
    defined = [value for value in every if not math.isnan(value)]
    mean = fmean(defined) if defined else None
    std = None
    if mean is not None and len(defined) > 1:
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in defined) / (len(defined) - 1))
    return Mean(mean, std, len(defined), len(every))


def mean_over_sets(columns: Sequence[Sequence[float]]) -> Mean:
    """Return the mean over test sets, its spread over seeds, and how many of the sets it covers.

    Only sets with a defined value for every seed are averaged, so that all seeds average the same sets. ``columns``
    holds the values of each set that the mean should cover, one per seed; none where it was not measured.
    """
    covered = [values for values in columns if len(values) and not any(map(math.isnan, values))]
    if not covered:
        return Mean(None, None, 0, len(columns))
    over_seeds = mean_of(mean_of(values).value or 0.0 for values in zip(*covered, strict=True))
    return Mean(over_seeds.value, over_seeds.std, len(covered), len(columns))
