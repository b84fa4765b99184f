"""What the sections of report.html show: results shaped for the template, all text still unescaped data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.evaluate.metrics import METRICS, Mean
from stages.report.figures import bar_chart
from stages.report.names import printable
from stages.report.tables import METRIC_NAMES, column_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stages.analyse.run import ProfileFile
    from stages.report.results import Results

BAR_METRICS = ("ap", "accuracy_real", "accuracy_fake")


def warnings(results: Results) -> Iterator[str]:
    """Say what the numbers do not cover."""
    for corpus in results.corpora:
        where = f"corpus {printable(corpus.name)}, view {printable(corpus.view)}"
        if corpus.failed:
            yield f"{corpus.failed:,} image(s) could not be read and have no score ({where})."
        if corpus.in_no_set:
            yield f"{corpus.in_no_set:,} scored image(s) name no test set and are in no result ({where})."


def facts(results: Results) -> list[dict[str, object]]:
    """What was run and on what."""
    seeds = sorted({seed for entry in results.entries for seed in results.seeds(entry)})
    heads = list(dict.fromkeys(entry.head for entry in results.entries))
    corpora = list(dict.fromkeys(corpus.name for corpus in results.corpora))
    views = {corpus.name: corpus for corpus in results.corpora}.values()
    return [
        {"name": "Images", "value": f"{sum(c.n_real + c.n_fake for c in views):,}", "detail": _of_what(results)},
        {"name": "Test sets", "value": len(results.sets), "detail": f"of {', '.join(corpora)}"},
        {"name": "Heads", "value": len(heads), "detail": ", ".join(heads)},
        {"name": "Seeds", "value": len(seeds), "detail": ", ".join(map(str, seeds))},
    ]


def _of_what(results: Results) -> str:
    views = {corpus.name: corpus for corpus in results.corpora}.values()
    return f"{sum(c.n_real for c in views):,} real, {sum(c.n_fake for c in views):,} synthetic"


def metric(results: Results, metric: str) -> dict[str, object]:
    """Name a metric and the entries that are best in its mean over sets."""
    means = {entry.label: results.of_sets(entry, metric) for entry in results.entries}
    name = METRIC_NAMES[metric]
    return {"key": metric, "name": name[0].upper() + name[1:], "best": _best_of_means(means)}


def _best_of_means(means: Mapping[str, Mean]) -> set[str]:
    """Like :func:`_best`; nobody is best where the means cover different numbers of sets."""
    return _best(means) if len({mean.count for mean in means.values()}) == 1 else set()


def _best(means: Mapping[str, Mean]) -> set[str]:
    """Return who has the best value as printed, when there is somebody to be better than."""
    printed = {name: f"{mean.value:.3f}" for name, mean in means.items() if mean.value is not None}
    return {name for name, text in printed.items() if len(means) > 1 and text == max(printed.values())}


def entries(results: Results) -> list[dict[str, Any]]:
    """The headline table: means over sets for every entry."""
    entries = []
    for entry in results.entries:
        means = {metric: results.of_sets(entry, metric) for metric in METRICS}
        counts = sorted({mean.count for mean in means.values()})
        covered = f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} of {len(results.sets)}"
        line = {"label": entry.label, "seeds": results.seeds(entry), "means": means}
        entries.append({**line, "covered": covered, "uneven": len(counts) > 1})
    return entries


def matrix(results: Results, metric: str) -> dict[str, object]:
    """Sets by entries for one metric, with the mean over sets below."""
    rows = []
    for tested, name in column_names(results).items():
        means = {entry.label: results.of_set(entry, tested, metric) for entry in results.entries}
        best = _best(means)
        rows.append({"name": name, "cells": [{"mean": m, "best": label in best} for label, m in means.items()]})
    over_sets = {entry.label: results.of_sets(entry, metric) for entry in results.entries}
    best = _best_of_means(over_sets)
    title = {"ap": "Average precision (AP)", "accuracy": "Accuracy at score 0.5"}[metric]
    return {
        "title": title,
        "rows": rows,
        "means": [{"mean": mean, "best": label in best} for label, mean in over_sets.items()],
    }


def bar_plots(results: Results, numbers: Iterator[int]) -> list[dict[str, object]]:
    """One figure a set; ``numbers`` gives each its number in the page."""
    plots = []
    for tested, name in column_names(results).items():
        n_real, n_fake = results.size(tested)
        heads = [
            (e.label, [(m, METRIC_NAMES[m], results.of_set(e, tested, m)) for m in BAR_METRICS])
            for e in results.entries
        ]
        chart = bar_chart(f"Test set {name}: AP and accuracy by head", heads)
        detail = f"{n_real:,} real, {n_fake:,} synthetic images"
        plots.append({"name": name, "detail": detail, "chart": chart, "number": next(numbers)})
    return plots


def per_set(results: Results) -> list[dict[str, object]]:
    """Every metric of every set and entry."""
    rows = []
    for tested, name in column_names(results).items():
        n_real, n_fake = results.size(tested)
        for entry in results.entries:
            means = [results.of_set(entry, tested, metric) for metric in METRICS]
            rows.append({"name": name, "head": entry.label, "means": means, "n_real": n_real, "n_fake": n_fake})
    return rows


def undefined(results: Results) -> list[dict[str, str]]:
    """What is undefined, and why."""
    names = column_names(results)
    return [
        {"name": names[tested], "head": entry.label, "metric": METRIC_NAMES[metric], "reason": reason}
        for entry, tested, metric, reason in results.undefined()
    ]


def provenance(
    results: Results,
    profiles: Sequence[ProfileFile],
    versions: Mapping[str, str],
    head_cards: Mapping[str, Mapping[str, object]],
) -> list[dict[str, object]]:
    """Where the numbers come from, as titled tables of text; ``mono`` names the columns of hashes."""
    cards = [
        [c.head, str(c.seed), c.corpus, c.view, c.feature_key, c.head_sha256, str(c.failed)] for c in results.cards
    ]
    settings = [
        [head, "; ".join(f"{name} {value}" for name, value in card.items())] for head, card in head_cards.items()
    ]
    observed = [[profile.corpus, profile.view, profile.feature_key] for profile in profiles]
    score_header = ["Head", "Seed", "Corpus", "View", "Feature key", "sha256 of the head file", "Unreadable images"]
    blocks: list[dict[str, object]] = [
        {"title": "Scores", "header": score_header, "rows": cards, "mono": (4, 5)},
        {"title": "Heads", "header": ["Head", "Settings"], "rows": settings, "mono": ()},
        {"title": "Profiles", "header": ["Corpus", "View", "Feature key"], "rows": observed, "mono": (2,)},
        {
            "title": "Programs",
            "header": ["Program", "Version"],
            "rows": [list(i) for i in versions.items()],
            "mono": (),
        },
    ]
    return [block for block in blocks if block["rows"]]
