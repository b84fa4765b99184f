"""Honest means: over seeds and over test sets, each saying how many of how many values it covers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stages.measure.metrics import Metrics


@dataclass(frozen=True)
class Mean:
    """A mean that says what it covers.

    Attributes:
        value: mean of the defined values; None when there is none.
        std: their standard deviation (ddof = 1); None with fewer than two, there is no spread then.
        count: how many values are defined.
        total: how many there are.
    """

    value: float | None
    std: float | None
    count: int
    total: int


def mean_of(values: Sequence[float | None]) -> Mean:
    """Return the mean and spread of the defined values, exactly rounded, so that their order changes nothing."""
    defined = [value for value in values if value is not None]
    if not defined:
        return Mean(None, None, 0, len(values))
    mean = math.fsum(defined) / len(defined)
    std = None
    if len(defined) > 1:
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in defined) / (len(defined) - 1))
    return Mean(mean, std, len(defined), len(values))


def mean_over_seeds(by_seed: Sequence[Metrics | None], metric: str) -> Mean:
    """Return the mean and spread of a metric of one set over seeds; None stands for a seed without scores."""
    return mean_of([None if metrics is None else metrics.value(metric) for metrics in by_seed])


def mean_over_sets(by_seed: Sequence[Mapping[str, Metrics]], names: Sequence[str], metric: str) -> Mean:
    """Return the headline: the mean over sets, its spread over seeds, and how many of the sets it covers.

    Only sets with a defined value for every seed are averaged, so that all seeds average the same sets.

    Args:
        by_seed: for each seed, set name -> metrics.
        names: all sets that the mean should cover.
        metric: one of ``METRICS``.

    Returns:
        ``value`` and ``std`` over seeds of the mean over sets; ``count`` of ``total`` sets.
    """

    def of(metrics: Mapping[str, Metrics], name: str) -> float | None:
        return metrics[name].value(metric) if name in metrics else None

    covered = [name for name in names if by_seed and all(of(metrics, name) is not None for metrics in by_seed)]
    if not covered:
        return Mean(None, None, 0, len(names))
    over_seeds = mean_of([mean_of([of(metrics, name) for name in covered]).value for metrics in by_seed])
    return Mean(over_seeds.value, over_seeds.std, len(covered), len(names))
