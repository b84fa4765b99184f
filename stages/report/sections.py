"""What the sections of report.html show: results shaped for the template, all text still unescaped data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stages.evaluate.metrics import ERRORS, METRICS
from stages.evaluate.scores import MATCHED
from stages.report.tables import METRIC_NAMES, column_names
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.evaluate.means import Mean
    from stages.report.intervals import Uncertainty
    from stages.report.results import Results

_THRESHOLDS = frozenset(METRICS[METRICS.index("balanced_accuracy") + 1 :])
MATRICES = {"ap": "Average precision (AP)", "accuracy": "Accuracy at score 0.5"}


def warnings(results: Results, audits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say what the numbers do not cover, and what the audit of the corpora found."""
    for audit in audits:
        for warning in audit.get("warnings", []):
            place = "/".join(str(part) for part in (audit.get("corpus"), warning.get("set")) if part)
            yield f"Audit of {printable(place)}: {printable(str(warning.get('text', '')))}"
    for sample in results.samples.values():
        where = f"corpus {printable(sample.corpus)}, view {printable(sample.view)}"
        if sample.failed:
            yield f"{sample.failed:,} image(s) could not be read and have no score ({where})."
        if sample.in_no_set:
            yield f"{sample.in_no_set:,} scored image(s) name no test set and are in no result ({where})."
    own: dict[str, set[str]] = {}
    for card in results.cards:
        if card.facts.get("trained_on") == card.corpus:
            own.setdefault(card.corpus, set()).add(card.head)
    for corpus, heads in sorted(own.items()):
        names = ", ".join(map(printable, sorted(heads)))
        yield f"{names}: trained on images of corpus {printable(corpus)}, which is tested here too; do not trust these."
    unmoved = {card.head for card in results.cards if card.facts.get("window_moved") is False}
    for head in sorted(unmoved):
        yield f"Head {printable(head)}: for some seed the window is still that of the random draw before training."


def facts(results: Results) -> list[dict[str, object]]:
    """What was run and on what."""
    seeds = sorted({seed for entry in results.entries for seed in results.seeds(entry)})
    heads = list(dict.fromkeys(entry.head for entry in results.entries))
    samples = results.samples.values()
    runs = {(card.head, card.seed) for card in results.cards}
    n_fake = sum(sample.n_fake for sample in samples)
    n_real = sum(len(sample) for sample in samples) - n_fake
    found: list[dict[str, object]] = [
        {"name": "Images", "value": f"{n_real + n_fake:,}", "detail": f"{n_real:,} real, {n_fake:,} synthetic"},
        {"name": "Test sets", "value": len(results.sets), "detail": f"of {', '.join(results.samples)}"},
        {"name": "Heads", "value": len(heads), "detail": ", ".join(heads)},
        {"name": "Seeds", "value": len(seeds), "detail": ", ".join(map(str, seeds))},
        {
            "name": "Configurations tried",
            "value": len(runs),
            "detail": "heads and seeds; the best of several is partly luck",
        },
    ]
    degraded = [view for view in results.views if not view.startswith(MATCHED)]
    if degraded:
        kinds = list(dict.fromkeys(view.partition("-")[0] for view in degraded))
        found.append({"name": "Degraded views", "value": len(degraded), "detail": ", ".join(kinds)})
    return found


def metric_groups(results: Results) -> list[dict[str, Any]]:
    """Return the metrics in two groups that each fit a page, with the entries that are best in their mean over sets."""
    return [
        {"title": title, "metrics": [_metric(results, name) for name in METRICS if (name in _THRESHOLDS) == second]}
        for title, second in (("ranking and accuracy at score 0.5", False), ("other thresholds and calibration", True))
    ]


def _metric(results: Results, name: str) -> dict[str, object]:
    means = {entry.label: results.of_sets(entry, name) for entry in results.entries}
    title = METRIC_NAMES[name]
    return {"key": name, "name": title[0].upper() + title[1:], "best": _best_of_means(means, name)}


def headline(results: Results) -> str:
    """Return the result in one sentence: the best mean AP, how much is lost at the usual threshold, and to whom."""
    means = {entry.label: results.of_sets(entry, "ap") for entry in results.entries}
    ranked = sorted((m.value, label) for label, m in means.items() if m.value is not None)
    if not ranked:
        return "No test set has both classes: AP is undefined everywhere."
    best = next(entry for entry in results.entries if entry.label == ranked[-1][1])
    ap, accuracy, oracle = (results.of_sets(best, name) for name in ("ap", "accuracy", "oracle_accuracy"))
    text = f"{printable(best.label)} has the highest mean AP, {ranked[-1][0]:.3f} over {ap.count} of {ap.total} sets"
    if accuracy.value is not None and oracle.value is not None:
        text += f"; its accuracy is {accuracy.value:.3f} at score 0.5 and {oracle.value:.3f} at the oracle's threshold"
    return f"{text}."


def entries(results: Results, uncertainty: Uncertainty) -> list[dict[str, Any]]:
    """The headline table: means over sets for every entry, with their intervals."""
    found = []
    for entry in results.entries:
        means = {name: results.of_sets(entry, name) for name in METRICS}
        intervals = {name: uncertainty.of_sets(entry, name) for name in METRICS}
        found.append({"label": entry.label, "seeds": results.seeds(entry), "means": means, "intervals": intervals})
    return found


def matrix(results: Results, name: str) -> dict[str, object]:
    """Sets by entries for one metric, with the mean over sets below."""
    rows = []
    for tested, set_name in column_names(results).items():
        means = {entry.label: results.of_set(entry, tested, name) for entry in results.entries}
        best = _best(means, name)
        rows.append({"name": set_name, "cells": [{"mean": m, "best": label in best} for label, m in means.items()]})
    over_sets = {entry.label: results.of_sets(entry, name) for entry in results.entries}
    best = _best_of_means(over_sets, name)
    means_row = [{"mean": mean, "best": label in best} for label, mean in over_sets.items()]
    return {"title": MATRICES[name], "rows": rows, "means": means_row}


def per_set(results: Results, uncertainty: Uncertainty) -> list[dict[str, object]]:
    """Every metric of every set and entry."""
    rows = []
    for tested, name in column_names(results).items():
        n_real, n_fake = results.size(tested)
        for entry in results.entries:
            line = {"name": name, "head": entry.label, "n_real": n_real, "n_fake": n_fake}
            cells = {
                metric_name: (
                    results.of_set(entry, tested, metric_name),
                    uncertainty.of_set(entry, tested, metric_name),
                )
                for metric_name in METRICS
            }
            rows.append({**line, "cells": cells})
    return rows


def undefined(results: Results) -> list[dict[str, str]]:
    """What is undefined and why; heads and sets that share a reason share a line."""
    names = column_names(results)
    heads: dict[tuple[str, str, str], list[str]] = {}
    for entry, tested, metric_name, reason in results.undefined():
        heads.setdefault((names[tested], METRIC_NAMES[metric_name], reason), []).append(entry.label)
    sets: dict[tuple[str, str, str], list[str]] = {}
    for (name, title, reason), who in heads.items():
        of_heads = "all" if len(who) == len(results.entries) else ", ".join(who)
        sets.setdefault((of_heads, title, reason), []).append(name)
    lines = []
    for (of_heads, title, reason), which in sets.items():
        of_sets = "all" if len(which) == len(names) else ", ".join(which)
        lines.append({"name": of_sets, "head": of_heads, "metric": title, "reason": reason})
    return lines


def provenance(
    results: Results,
    profiles: Sequence[AnalysisFile],
    versions: Mapping[str, str],
    head_cards: Mapping[str, Mapping[str, object]],
) -> list[dict[str, object]]:
    """Where the numbers come from, as titled tables of text; ``mono`` names the columns of hashes."""
    keys = {(c.corpus, c.view): [c.corpus, c.view, c.feature_key, str(c.failed)] for c in results.cards}
    files: dict[tuple[str, int], list[str]] = {}
    for card in results.cards:
        threshold = results.thresholds.get((card.head, card.seed))
        text = "none" if threshold is None else f"{threshold:.4f}"
        trained_on = str(card.facts.get("trained_on") or "not stated")
        files[card.head, card.seed] = [card.head, str(card.seed), trained_on, text, card.head_sha256]
    settings = [
        [head, "; ".join(f"{name} {value}" for name, value in card.items())] for head, card in head_cards.items()
    ]
    observed = [[profile.corpus, profile.view, profile.feature_key] for profile in profiles]
    of_heads = ["Head", "Seed", "Trained on", "Held-out threshold (logit)", "sha256 of the head file"]
    blocks: list[dict[str, object]] = [
        _block("Features", ["Corpus", "View", "Feature key", "Unreadable images"], list(keys.values()), (2,)),
        _block("Head files", of_heads, list(files.values()), (4,)),
        _block("Heads", ["Head", "Settings"], settings),
        _block("Profiles", ["Corpus", "View", "Feature key"], observed, (2,)),
        _block("Programs", ["Program", "Version"], [list(item) for item in versions.items()]),
    ]
    return [block for block in blocks if block["rows"]]


def _block(title: str, header: list[str], rows: list[list[str]], mono: tuple[int, ...] = ()) -> dict[str, object]:
    return {"title": title, "header": header, "rows": rows, "mono": mono}


def _best_of_means(means: Mapping[str, Mean], name: str) -> set[str]:
    """Like :func:`_best`; nobody is best where the means cover different numbers of sets."""
    return _best(means, name) if len({mean.count for mean in means.values()}) == 1 else set()


def _best(means: Mapping[str, Mean], name: str) -> set[str]:
    """Return who has the best value as printed, when there is somebody to be better than."""
    printed = {label: f"{mean.value:.3f}" for label, mean in means.items() if mean.value is not None}
    choose = min if name in ERRORS else max
    return {label for label, text in printed.items() if len(means) > 1 and text == choose(printed.values())}
