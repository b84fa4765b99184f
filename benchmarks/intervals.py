"""Do the printed intervals and tests hold? Simulated test sets whose true metrics are known.

Two normal classes of logits, moved apart as far as an accuracy asks for; several heads share what makes an image hard.
Prints how often an interval covers the truth, how often a test of equal heads finds a difference, and the power near
the ceiling. docs/metrics.md has the figures.

python -m benchmarks.intervals [--studies 500]
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from stages.measure.bootstrap import Resampler, difference, draw_counts, holm, interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

ACCURACIES = (0.75, 0.92, 0.986, 0.995, 0.998)
SIZES = ((200, 200), (30, 270))
METRICS = ("ap", "roc_auc", "accuracy", "accuracy_real", "accuracy_fake", "balanced_accuracy")
COMPARED = ("ap", "roc_auc", "accuracy")
REPLICATES = 400
SETS_IN_MEAN = 20


# Metric -> values, and metric -> replicates.
Measured = tuple[dict[str, "NDArray[np.float64]"], dict[str, "NDArray[np.float64]"]]


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500, help="Simulated test sets per line.")
    studies = parser.parse_args().studies
    print("coverage of 95 % intervals: one set, and the mean over 20 sets")
    for accuracy in ACCURACIES:
        for size in SIZES:
            single, mean, separated = coverage(accuracy, size, studies=studies, means=studies // 2)
            print(f"  accuracy {accuracy}, {size[0]} + {size[1]} images, separated {separated:.2f}")
            for what, found in (("one set", single), ("mean", mean)):
                print(f"    {what:8}", " ".join(f"{name} {share:.3f}" for name, share in found.items()))
    print("share of tests of two equal heads with p < 0.05")
    for accuracy in ACCURACIES[:3]:
        for seeds in (1, 3):
            found = type_one(accuracy, seeds, studies=studies)
            print(f"  accuracy {accuracy}, {seeds} seeds:", " ".join(f"{n} {s:.3f}" for n, s in found.items()))
    print(f"share of tables of eight equal heads with a significant cell: {any_significant(studies // 2):.3f}")
    print(f"a separated head against chance: significant in {significant_sets()} of 37 sets and metrics")


def truth(accuracy: float, n_real: int, n_fake: int) -> dict[str, float]:
    """Return the metrics of a head on infinitely many images."""
    shift = norm.ppf(accuracy)
    found = dict.fromkeys(METRICS, accuracy) | {"roc_auc": float(norm.cdf(2**0.5 * shift))}

    def precision(at: float) -> float:
        alarms, hits = n_real * norm.sf(at + shift), n_fake * norm.sf(at - shift)
        return float(hits / (hits + alarms))

    found["ap"] = quad(lambda at: norm.pdf(at - shift) * precision(at), -8 + shift, 8 + shift)[0]
    return found


def coverage(
    accuracy: float, size: tuple[int, int], *, studies: int, means: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Return how often intervals cover the truth, of one set and of the mean over sets, and how many are separated."""
    wanted, single, mean = truth(accuracy, *size), dict.fromkeys(METRICS, 0), dict.fromkeys(METRICS, 0)
    separated, held = 0, []
    for number, (value, replicates) in enumerate(_measured(accuracy, size, max(studies, means * SETS_IN_MEAN))):
        if number < studies:
            separated += value["roc_auc"].item() == 1
            _count(single, wanted, value, replicates, [size])
        held.append((value, replicates))
        if len(held) == SETS_IN_MEAN:
            values, columns = (_mean(part) for part in zip(*held, strict=True))
            _count(mean, wanted, values, columns, [size] * SETS_IN_MEAN)
            held = []
    shares = [{name: count / of for name, count in found.items()} for found, of in ((single, studies), (mean, means))]
    return shares[0], shares[1], separated / studies


def _count(
    found: dict[str, int],
    wanted: dict[str, float],
    value: dict[str, NDArray[np.float64]],
    replicates: dict[str, NDArray[np.float64]],
    sizes: Sequence[tuple[int, int]],
) -> None:
    for name in METRICS:
        low, high = interval(name, value[name].item(), replicates[name], sizes)
        found[name] += low <= wanted[name] <= high


def _measured(accuracy: float, size: tuple[int, int], count: int) -> Iterator[Measured]:
    """Yield the metrics of simulated test sets and their replicates."""
    labels, random = np.repeat([0, 1], size), np.random.default_rng(0)
    shift = norm.ppf(accuracy) * (2 * labels - 1)
    for number in range(count):
        resampler = Resampler(labels, random.normal(size=len(labels)) + shift)
        drawn = draw_counts(labels, replicates=REPLICATES, seed=number)
        whole = resampler.metrics(np.ones((1, len(labels)), dtype=np.uint8))
        yield whole, _joined([resampler.metrics(counts) for counts in drawn])


def _joined(parts: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _mean(parts: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}


def _compared(
    random: np.random.Generator,
    labels: NDArray[np.int64],
    *,
    heads: int,
    seeds: int,
    accuracy: float,
    seed_spread: float,
) -> list[Measured]:
    """Return, for each head, the metrics of every seed, (S,), and the replicates of their mean, (R,)."""
    hard = random.normal(size=len(labels))
    (counts,) = draw_counts(labels, replicates=REPLICATES, seed=int(random.integers(2**31)))
    found = []
    for _ in range(heads):
        of_seeds = []
        for _ in range(seeds):
            own = 0.7 * hard + 0.51**0.5 * random.normal(size=len(labels))
            moved = norm.ppf(accuracy) + random.normal(0, seed_spread)
            of_seeds.append(Resampler(labels, own + moved * (2 * labels - 1)))
        values = [each.metrics(np.ones((1, len(labels)), dtype=np.uint8)) for each in of_seeds]
        found.append((_joined(values), _mean([each.metrics(counts) for each in of_seeds])))
    return found


def _p_values(heads: Sequence[Measured], size: tuple[int, int]) -> dict[str, list[float]]:
    """Return metric -> p of the first head against each other one."""
    (values, replicates), *others = heads
    p_values: dict[str, list[float]] = {name: [] for name in COMPARED}
    for theirs, their_replicates in others:
        for name in COMPARED:
            draws = replicates[name] - their_replicates[name]
            p_values[name].append(difference(name, values[name].tolist(), theirs[name].tolist(), draws, [size]).p)
    return p_values


def type_one(accuracy: float, seeds: int, *, studies: int, size: tuple[int, int] = (200, 200)) -> dict[str, float]:
    """Return how often two heads of one quality are found to differ; trainings differ, too, where there are several."""
    random, labels = np.random.default_rng(1), np.repeat([0, 1], size)
    found = dict.fromkeys(COMPARED, 0)
    for _ in range(studies):
        heads = _compared(
            random, labels, heads=2, seeds=seeds, accuracy=accuracy, seed_spread=0.1 if seeds > 1 else 0.0
        )
        for name, (p,) in _p_values(heads, size).items():
            found[name] += p < 0.05
    return {name: count / studies for name, count in found.items()}


def any_significant(tables: int, *, heads: int = 8, sets: int = 5, seeds: int = 3) -> float:
    """Return the share of printed tables of equal heads that have a significant cell."""
    size = (150, 150)
    random, labels = np.random.default_rng(2), np.repeat([0, 1], size)
    found = 0
    for _ in range(tables):
        p_values: list[float] = []
        for _ in range(sets):
            of_set = _compared(random, labels, heads=heads, seeds=seeds, accuracy=0.92, seed_spread=0.1)
            p_values += [p for column in _p_values(of_set, size).values() for p in column]
        found += min(holm(p_values)) < 0.05
    return found / tables


def significant_sets(sets: int = 37) -> dict[str, int]:
    """Return in how many sets a head that separates the classes is significantly better than chance, by metric."""
    size = (200, 200)
    random, labels = np.random.default_rng(3), np.repeat([0, 1], size)
    p_values: dict[tuple[int, str], float] = {}
    for number in range(sets):
        alone = {"heads": 1, "seeds": 1, "seed_spread": 0.0}
        heads = [_compared(random, labels, accuracy=accuracy, **alone)[0] for accuracy in (1 - 1e-9, 0.5)]
        p_values |= {(number, name): p for name, (p,) in _p_values(heads, size).items()}
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {name: sum(corrected[at, name] < 0.05 for at in range(sets)) for name in COMPARED}


if __name__ == "__main__":
    main()
