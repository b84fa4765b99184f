"""Metrics of stored scores, and honest means of them: over test sets and over seeds.

A metric that is not defined for a set (it has one class only, or no images) is ``None`` with a reason. It never enters
a mean as 0, and every mean says how many of how many values it covers. Ranks come from logits in float64: sigmoid
scores saturate near 0 and 1, where different logits become one score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stages.evaluate.scores import Scores

METRICS = ("ap", "roc_auc", "accuracy", "accuracy_real", "accuracy_fake")


@dataclass(frozen=True)
class Metrics:
    """How well one head (one seed) tells one set of images apart.

    Attributes:
        n_real: number of real images.
        n_fake: number of synthetic images.
        ap: average precision, synthetic being the positive class.
        roc_auc: area under the ROC curve.
        accuracy: share of images on the right side of score 0.5 (logit 0; a logit of exactly 0 says real).
        accuracy_real: the same among real images.
        accuracy_fake: the same among synthetic images.
        undefined: metric name -> why it is None.
    """

    n_real: int
    n_fake: int
    ap: float | None = None
    roc_auc: float | None = None
    accuracy: float | None = None
    accuracy_real: float | None = None
    accuracy_fake: float | None = None
    undefined: Mapping[str, str] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        """Return one of ``METRICS`` by name."""
        value: float | None = getattr(self, metric)
        return value


def measure(labels: NDArray[np.integer[Any]], logits: NDArray[np.floating[Any]]) -> Metrics:
    """Measure one set of images.

    Args:
        labels: (N,) 0 real, 1 synthetic.
        logits: (N,) finite, > 0 means synthetic. The order of the rows changes nothing.

    Raises:
        ValueError: the shapes differ or a logit is not finite.
    """
    if labels.shape != logits.shape or labels.ndim != 1:
        raise ValueError(f"expected labels and logits of one shape (N,), got {labels.shape} and {logits.shape}")
    exact = logits.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(f"expected finite logits, got {int((~np.isfinite(exact)).sum())} that are not")
    fake = labels == 1
    right = (exact > 0) == fake
    n_fake = int(fake.sum())
    n_real = len(fake) - n_fake
    reasons = [word for word, count in (("no real images", n_real), ("no synthetic images", n_fake)) if count == 0]
    reason = "no images" if len(reasons) == 2 else "".join(reasons)
    undefined = {
        "ap": reason,
        "roc_auc": reason,
        "accuracy": "" if len(fake) else reason,
        "accuracy_real": "" if n_real else reason,
        "accuracy_fake": "" if n_fake else reason,
    }
    values: dict[str, float] = {}
    if not reason:
        from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415 - slow to import

        values = {"ap": float(average_precision_score(fake, exact)), "roc_auc": float(roc_auc_score(fake, exact))}
    for name, chosen in (("accuracy", slice(None)), ("accuracy_real", ~fake), ("accuracy_fake", fake)):
        if not undefined[name]:
            values[name] = float(right[chosen].mean())
    return Metrics(n_real, n_fake, **values, undefined={name: why for name, why in undefined.items() if why})


def measure_sets(scores: Scores) -> dict[str, Metrics]:
    """Measure every named test set of a scores file, in order of name; rows that name no set are in none."""
    return {name: measure(scores.label[rows], scores.logit[rows]) for name, rows in scores.members.items()}


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
