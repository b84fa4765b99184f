"""report.html: everything that a study found, on one page that can be sent to a reviewer."""

from __future__ import annotations

from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

from stages.evaluate.scores import MATCHED
from stages.measure.metrics import METRICS
from stages.report.html import render
from stages.report.observation import chosen_windows, projection_figures, transition_figures, window_figures
from stages.report.robustness import robustness_figures
from stages.report.set_figures import BAR_METRICS, MOST_HEADS, bar_figures, curve_figures, head_kind
from stages.report.sweeps import sweep_figures
from stages.report.thumbnails import SIDE
from storage.names import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.report.intervals import Uncertainty
    from stages.report.observation import Analyses
    from stages.report.results import NamedSet, Results
    from stages.report.study import Study
    from stages.report.sweeps import Column
    from stages.report.table import Table
    from stages.report.thumbnails import Errors

_MATRICES = {"ap": "Average precision (AP)", "accuracy": "Accuracy at score 0.5"}
_SECOND_GROUP = list(METRICS).index("balanced_accuracy") + 1
# The metrics in two groups that each fit a page.
_METRIC_GROUPS = {
    "ranking and accuracy at score 0.5": list(METRICS)[:_SECOND_GROUP],
    "other thresholds and calibration": list(METRICS)[_SECOND_GROUP:],
}
_MOST_ROWS = 700  # of a table in the page; longer ones are in the tables beside it, and would fill the page
_OPEN_SETS = 6  # above this number, the curves of sets are folded away until asked for


def render_page(
    study: Study,
    results: Results,
    uncertainty: Uncertainty,
    *,
    analyses: Analyses,
    sweeps: Mapping[str, Sequence[Column]],
    tables: Mapping[str, Table | None],
    published: Sequence[Table],
    errors: Sequence[Errors],
) -> str:
    """Return the page's HTML; the same arguments give the same bytes.

    Args:
        study: what is known beside the numbers.
        results: what was measured.
        uncertainty: intervals and tests.
        analyses: transition profiles, windows and projections.
        sweeps: kind -> what was found.
        tables: by name, each None where there is nothing to show.
        published: tables of published beside measured numbers.
        errors: the surest errors of the first head, with pictures.
    """
    curves = curve_figures(results)
    context: dict[str, Any] = {
        "study": study,
        "results": results,
        "uncertainty": uncertainty,
        "set_names": results.column_names(),
        "best": cache(partial(_best, results)),
        "measures": METRICS,
        "thumbnail_side": SIDE,
        "caveats": [*study.notes, *_warnings(results, study.audits)],
        "headline": _headline(results),
        "facts": _facts(results),
        "metric_groups": _METRIC_GROUPS,
        "any_spread": any(len(results.seeds(head)) > 1 for head in results.heads),
        "matrices": _MATRICES,
        "bar_kinds": [(metric, METRICS[metric].title) for metric in BAR_METRICS],
        "head_legend": [(head_kind(results, head), head) for head in results.heads[:MOST_HEADS]],
        "most_rows": _MOST_ROWS,
        "bar_figures": bar_figures(results, uncertainty),
        "curve_figures": curves,
        "curves_open": len(curves) <= _OPEN_SETS,
        "robustness_figures": robustness_figures(results),
        "observations": transition_figures(analyses.profiles, results),
        "window_figures": window_figures(analyses.windows, results),
        "chosen_windows": chosen_windows(results),
        "sweep_figures": sweep_figures(sweeps),
        "projection_figures": projection_figures(analyses.projections),
        "tables": tables,
        "published": published,
        "errors": errors,
        "undefined_values": _undefined(results),
        "provenance": _provenance(study, results, analyses.profiles),
    }
    return render("report.html.j2", context)


def _warnings(results: Results, audits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
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
    own: dict[tuple[str, str], set[str]] = {}
    for card in results.cards:
        if card.facts.get("tested_images"):
            own.setdefault((card.corpus, card.facts["tested_images"]), set()).add(card.head)
    for (corpus, used), heads in sorted(own.items()):
        names = ", ".join(map(printable, sorted(heads)))
        yield f"{names}: tested images of corpus {printable(corpus)} {used} these heads; do not trust their numbers."
    unmoved = {card.head for card in results.cards if card.facts.get("window_moved") is False}
    for head in sorted(unmoved):
        yield f"Head {printable(head)}: for some seed the window is still that of the random draw before training."


def _facts(results: Results) -> list[tuple[str, object, str]]:
    """What was run and on what: name, value, detail."""
    seeds = sorted({seed for head in results.heads for seed in results.seeds(head)})
    samples = results.samples.values()
    runs = {(card.head, card.seed) for card in results.cards}
    n_fake = sum(sample.n_fake for sample in samples)
    n_real = sum(len(sample) for sample in samples) - n_fake
    found: list[tuple[str, object, str]] = [
        ("Images", f"{n_real + n_fake:,}", f"{n_real:,} real, {n_fake:,} synthetic"),
        ("Test sets", len(results.sets), f"of {', '.join(results.samples)}"),
        ("Heads", len(results.heads), ", ".join(results.heads)),
        ("Seeds", len(seeds), ", ".join(map(str, seeds))),
        ("Configurations tried", len(runs), "heads and seeds; the best of several is partly luck"),
    ]
    degraded = [view for view in results.views if not view.startswith(MATCHED)]
    if degraded:
        kinds = dict.fromkeys(view.partition("-")[0] for view in degraded)
        found.append(("Degraded views", len(degraded), ", ".join(kinds)))
    return found


def _headline(results: Results) -> str:
    """Return the result in a sentence per corpus: the best mean AP, and how much is lost at the usual threshold."""
    return " ".join(_headline_of(results, corpus) for corpus in results.corpora)


def _headline_of(results: Results, corpus: str) -> str:
    where = f"On {printable(corpus)}, " if len(results.corpora) > 1 else ""
    means = {head: results.of_corpus(head, "ap", corpus) for head in results.heads}
    ranked = sorted((mean.value, head) for head, mean in means.items() if mean.value is not None)
    if not ranked:
        return f"{where}no test set has both classes: AP is undefined." if where else "No test set has both classes."
    value, best = ranked[-1]
    covered = f"{means[best].count} of {means[best].total} sets"
    text = f"{where}{printable(best)} has the highest mean AP, {value:.3f} over {covered}"
    accuracy, oracle = (results.of_corpus(best, name, corpus).value for name in ("accuracy", "oracle_accuracy"))
    if accuracy is not None and oracle is not None:
        text += f"; its accuracy is {accuracy:.3f} at score 0.5 and {oracle:.3f} at the oracle's threshold"
    return f"{text}."


def _best(results: Results, metric: str, sets: tuple[NamedSet, ...]) -> set[str]:
    """Return the heads with the best mean over sets as printed.

    Nobody is best alone, or where the means cover different numbers of sets.
    """
    means = {head: results.of_sets(head, metric, sets) for head in results.heads}
    if len({mean.count for mean in means.values()}) > 1:
        return set()
    printed = {head: f"{mean.value:.3f}" for head, mean in means.items() if mean.value is not None}
    choose = min if METRICS[metric].lower_is_better else max
    return {head for head, text in printed.items() if len(means) > 1 and text == choose(printed.values())}


def _undefined(results: Results) -> list[tuple[str, str, str, str]]:
    """Return sets, heads, metric and reason of what is undefined; sets and heads that share a reason share a line."""
    names = results.column_names()
    heads: dict[tuple[str, str, str], list[str]] = {}
    for head, (tested, name), metric in product(results.heads, names.items(), METRICS):
        if reason := results.why_undefined(head, tested, metric):
            heads.setdefault((name, METRICS[metric].title, reason), []).append(head)
    sets: dict[tuple[str, str, str], list[str]] = {}
    for (name, metric, reason), who in heads.items():
        of_heads = "all" if len(who) == len(results.heads) else ", ".join(who)
        sets.setdefault((of_heads, metric, reason), []).append(name)
    return [("all" if len(of) == len(names) else ", ".join(of), *line) for line, of in sets.items()]


def _provenance(
    study: Study, results: Results, profiles: Sequence[AnalysisFile]
) -> list[tuple[str, Sequence[str], Collection[Sequence[str]], int | None]]:
    """Where the numbers come from: title, header and rows of tables, and which column holds hashes."""
    keys = {(c.corpus, c.view): [c.corpus, c.view, c.feature_key, str(c.failed)] for c in results.cards}
    files: dict[tuple[str, int], list[str]] = {}
    for card in results.cards:
        threshold = results.thresholds.get((card.head, card.seed))
        text = "none" if threshold is None else f"{threshold:.4f}"
        trained_on = str(card.facts.get("trained_on") or "not stated")
        files[card.head, card.seed] = [card.head, str(card.seed), trained_on, text, card.head_sha256]
    settings = [
        [head, "; ".join(f"{name} {value}" for name, value in card.items())] for head, card in study.head_cards.items()
    ]
    observed = [[profile.corpus, profile.view, profile.feature_key] for profile in profiles]
    of_files = ["Head", "Seed", "Trained on", "Held-out threshold (logit)", "sha256 of the head file"]
    tables = [
        ("Features", ["Corpus", "View", "Feature key", "Unreadable images"], keys.values(), 2),
        ("Head files", of_files, files.values(), 4),
        ("Heads", ["Head", "Settings"], settings, None),
        ("Profiles", ["Corpus", "View", "Feature key"], observed, 2),
        ("Programs", ["Program", "Version"], study.versions.items(), None),
    ]
    return [table for table in tables if table[2]]
