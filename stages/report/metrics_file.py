"""metrics.json for ``dvc metrics`` (short, numbers only), its full counterpart, and the terminal's table of it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from stages.measure.metrics import METRICS
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stages.measure.means import Mean
    from stages.report.intervals import Uncertainty
    from stages.report.results import Results

HEADLINE = ("ap", "accuracy")


def short_metrics(results: Results) -> dict[str, Any]:
    """Return head -> corpus or "corpus/set" -> AP and accuracy (mean, and ``_std`` over seeds), numbers only.

    A corpus has the mean over its test sets, of which ``ap_sets`` of ``sets`` are in that of AP, likewise for accuracy.
    What is undefined is left out.
    """
    short: dict[str, Any] = {}
    for head in results.heads:
        lines: dict[str, dict[str, float]] = {}
        for corpus in results.corpora:
            lines[corpus] = {"sets": len(results.sets_of(corpus))}
            for metric in HEADLINE:
                mean = results.of_corpus(head, metric, corpus)
                lines[corpus] |= {**_numbers(metric, mean), f"{metric}_sets": mean.count}
        for tested, metric in product(results.sets, HEADLINE):
            lines.setdefault(tested.key, {}).update(_numbers(metric, results.of_set(head, tested, metric)))
        short[head] = lines
    return short


def full_metrics(results: Results, uncertainty: Uncertainty) -> dict[str, Any]:
    """Return head -> "corpus/set" -> metric -> mean, std, 95 % interval, per seed and, where undefined, the reason."""
    full: dict[str, Any] = {}
    for head in results.heads:
        full[head] = {}
        for tested in results.sets:
            n_real, n_fake = results.size(tested)
            line: dict[str, Any] = {"n_real": n_real, "n_fake": n_fake}
            by_seed = results.by_seed(head, tested)
            for metric in METRICS:
                mean = results.of_set(head, tested, metric)
                line[metric] = {
                    "mean": mean.value,
                    "std": mean.std,
                    "interval": uncertainty.of_set(head, tested, metric),
                    "seeds": {str(seed): found and found.value(metric) for seed, found in by_seed.items()},
                }
                if why := results.why_undefined(head, tested, metric):
                    line[metric]["undefined"] = why
            full[head][tested.key] = line
    return full


def result_table(metrics: Mapping[str, Any], *, title: str = "AP / accuracy") -> Table:
    """Lay out what metrics.json holds for the terminal: a row per set, a column per head, the mean below.

    Args:
        metrics: what :func:`short_metrics` returned, or ``json.loads`` of metrics.json.
        title: printed above.
    """
    # no frame around it: four heads then fit a terminal of 80 columns
    table = Table(title=Text(printable(title)), title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("set")
    for head in metrics:
        table.add_column(Text(printable(head)), justify="right")
    keys = {key: None for lines in metrics.values() for key in lines}
    corpora = [key for key in keys if "/" not in key]
    for corpus in corpora:
        means = [lines[corpus] for lines in metrics.values() if corpus in lines]
        for key in (key for key in keys if key.startswith(f"{corpus}/")):
            name = key if len(corpora) > 1 else key.partition("/")[2]
            table.add_row(Text(printable(name)), *(Text(_pair(lines.get(key, {}))) for lines in metrics.values()))
        table.add_section()
        title = f"mean of {corpus}" if len(corpora) > 1 else "mean over sets"
        table.add_row(Text(printable(title), style="bold"), *(Text(_pair(mean), style="bold") for mean in means))
        covered = [(mean["ap_sets"], mean["accuracy_sets"], mean["sets"]) for mean in means]
        counts = [f"{ap} / {acc} of {total}" if ap != acc else f"{ap} of {total}" for ap, acc, total in covered]
        table.add_row(Text("sets covered"), *map(Text, counts), end_section=True)
    return table


def _numbers(metric: str, mean: Mean) -> dict[str, float]:
    pairs = ((metric, mean.value), (f"{metric}_std", mean.std))
    return {name: value for name, value in pairs if value is not None}


def _pair(line: Mapping[str, float]) -> str:
    return " / ".join(f"{line[metric]:.3f}" if metric in line else "undefined" for metric in HEADLINE)
