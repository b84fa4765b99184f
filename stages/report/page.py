"""report.html: everything that a study found, on one page that can be sent to a reviewer.

The first page has what to read first, the result in a sentence, heads by benchmarks, and the verdicts on the paper's
claims; everything else is folded.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING, Any

from stages.evaluate.scores import MATCHED
from stages.measure.metrics import METRICS, shown_in
from stages.report.claims import counted, verdict
from stages.report.generators import generator_figures
from stages.report.html import render
from stages.report.observation import chosen_windows, projection_figures, transition_figures, window_figures
from stages.report.robustness import robustness_figures
from stages.report.set_figures import MOST_HEADS, curve_figures
from stages.report.sweeps import sweep_figures
from stages.report.table import Block, Table, Value
from stages.report.tables import HEADLINE
from stages.report.thumbnails import SIDE, most_confident_errors
from storage.views import ALIGN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.report.observation import Analyses
    from stages.report.results import NamedSet, Results
    from stages.report.study import Study
    from stages.report.sweeps import Sweeps
    from stages.report.table import Cell, Rows

_MOST_NAMES = 4  # of heads in the headline


def render_page(
    study: Study,
    results: Results,
    *,
    analyses: Analyses,
    sweeps: Sweeps,
    tables: Mapping[str, Table | None],
) -> str:
    """Return the page's HTML, the same bytes for the same arguments; ``tables``: name of a file -> its table."""
    context: dict[str, Any] = {
        "study": study,
        "results": results,
        "warnings": _warnings(results, study.audits),
        "headlines": [_headline(results, corpus) for corpus in results.corpora],
        "verdict": verdict(tables["reproduction"]),
        "claims": tables["claims"] and counted(tables["claims"]),
        "facts": _facts(results),
        "page_tables": _tables(results),
        "most_heads": MOST_HEADS,
        "curve_figures": curve_figures(results),
        "robustness_figures": robustness_figures(results),
        "transition_figures": transition_figures(analyses.profiles, results),
        "window_figures": window_figures(analyses.windows, results),
        "sweep_figures": sweep_figures(sweeps),
        "generator_figures": generator_figures(sweeps),
        "projection_figures": projection_figures(analyses.projections),
        "tables": tables,
        "published": [table for name, table in tables.items() if name.startswith("published_")],
        "errors": most_confident_errors(results, results.heads[0], study.sources),
        "thumbnail_side": SIDE,
        "provenance": _provenance(study, results, analyses.profiles),
    }
    return render("report.html.j2", context)


def _warnings(results: Results, audits: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return what the numbers do not cover and what the audits found: kind of warning -> sentences."""
    warnings: dict[str, list[str]] = defaultdict(list)
    for audit in audits:
        for warning in audit.get("warnings", []):
            where = "/".join(str(part) for part in (audit.get("corpus"), warning.get("set")) if part)
            warnings["warnings of the audit"].append(f"Audit of {where}: {warning.get('text', '')}")
    notes = warnings["notes on images without a score or a test set"]
    for corpus, images in results.images.items():
        where = f"corpus {corpus}, view {images.card.view}"
        if images.card.failed:
            notes.append(f"{images.card.failed:,} image(s) could not be read and have no score ({where}).")
        in_no_set = len(images) - len(set().union(*map(set, images.members.values())))
        if in_no_set:
            notes.append(f"{in_no_set:,} scored image(s) are in no test set and in no result ({where}).")
    trained: dict[tuple[str, str], set[str]] = defaultdict(set)
    for card in results.cards:
        if used := card.facts.get("tested_images"):
            trained[card.corpus, used].add(card.head)
    warnings["warnings of tested images that training used"] = [
        f"{', '.join(sorted(heads))}: tested images of corpus {corpus} {used} these heads; do not trust their numbers."
        for (corpus, used), heads in sorted(trained.items())
    ]
    unmoved = sorted({card.head for card in results.cards if card.facts.get("window_moved") is False})
    if unmoved:
        text = f"{', '.join(unmoved)}: for some seed, training left the random initial window unchanged."
        warnings["notes on windows"].append(text)
    for card in results.cards:
        if told := card.facts.get("external"):
            left_out = ", ".join(told["incomplete_sets"])
            warnings["notes on other detectors"].append(
                f"{card.head} on {card.corpus}: scores of {told['file']}, {told['rows']:,} rows, {told['unmatched']:,} "
                f"of no image and {told['ambiguous']:,} of several; {told['images_without_score']:,} images have no "
                "score" + (f", so these sets are left out: {left_out}." if left_out else ".")
            )
    return {kind: sentences for kind, sentences in warnings.items() if sentences}


def _headline(results: Results, corpus: str) -> str:
    """Return the result on a corpus: the best mean AP, the heads it cannot be separated from, and its accuracy."""
    where = f"On {corpus}, " if len(results.corpora) > 1 else ""
    sets = results.sets_of(corpus)
    means = {head: results.of_sets(head, "ap", sets) for head in results.heads}
    ranked = sorted(((mean.value, head) for head, mean in means.items() if mean.value is not None), reverse=True)
    if not ranked:
        return f"{where}no test set has both classes: AP is undefined." if where else "No test set has both classes."
    value, best = ranked[0]
    covered = f"{means[best].count} of {means[best].total} sets"
    text = f"{where}{best} has the highest mean AP, {100 * value:.2f} % over {covered}"
    own = results.interval(best, "ap", sets)
    others = [(head, results.interval(head, "ap", sets)) for _, head in ranked[1:]]
    close = [head for head, other in others if own and other and other[1] >= own[0]]
    if close:
        more = f" and {len(close) - _MOST_NAMES} more" if len(close) > _MOST_NAMES else ""
        text += f", but is not separable from {', '.join(close[:_MOST_NAMES])}{more}: the 95 % intervals overlap"
    accuracy, oracle = (results.of_sets(best, name, sets).value for name in ("accuracy", "oracle_accuracy"))
    if accuracy is not None and oracle is not None:
        text += f". Its accuracy is {100 * accuracy:.2f} % at score 0.5"
        text += f" and {100 * oracle:.2f} % at the oracle's threshold"
    return f"{text}."


def _facts(results: Results) -> list[tuple[str, object, str]]:
    """What was run and on what: name, value, detail."""
    seeds = sorted({seed for head in results.heads for seed in results.seeds(head)})
    n_fake = sum(int(images.label.sum()) for images in results.images.values())
    n_real = sum(map(len, results.images.values())) - n_fake
    few = len(results.heads) <= 2 * _MOST_NAMES
    configurations = {(card.head, card.seed) for card in results.cards}
    facts: list[tuple[str, object, str]] = [
        ("Images", f"{n_real + n_fake:,}", f"{n_real:,} real, {n_fake:,} synthetic"),
        ("Test sets", len(results.sets), f"of {', '.join(results.images)}"),
        ("Heads", len(results.heads), ", ".join(results.heads) if few else ""),
        ("Seeds", len(seeds), ", ".join(map(str, seeds))),
        ("Configurations tried", len(configurations), "heads and seeds; the best of several is partly luck"),
    ]
    degraded = [view for view in results.views if not view.startswith((MATCHED, ALIGN))]
    kinds = dict.fromkeys(view.partition("-")[0] for view in degraded)
    return [*facts, ("Degraded views", len(degraded), ", ".join(kinds))] if degraded else facts


def _tables(results: Results) -> dict[str, Table | None]:
    """Return the tables that the page alone has."""

    def value(head: str, metric: str, sets: Sequence[NamedSet]) -> Value:
        mean, interval = results.of_sets(head, metric, sets), results.interval(head, metric, sets)
        lower = METRICS[metric].lower_is_better
        return Value(
            mean.value, mean.std, interval=interval, covered=(mean.count, mean.total), lower_is_better=lower
        )  # fmt: skip

    def every_metric(groups: Mapping[str, Sequence[NamedSet]]) -> Table:
        blocks = [
            Block(name, [[head, *(value(head, metric, sets) for metric in METRICS)] for head in results.heads])
            for name, sets in groups.items()
        ]
        header = ["Head", *(metric.heading for metric in METRICS.values())]
        return Table("Every metric", header, blocks, ranked=range(1, len(header)), notes=["Percent, as above."])

    several = len(results.corpora) > 1
    seeds = "; ± over seeds" if any(len(results.seeds(head)) > 1 for head in results.heads) else "; one seed per head"
    note = (
        f"Percent{seeds}, and the 95 % interval over images. Accuracy is at score 0.5 unless another threshold is "
        "named; the oracle's threshold is chosen on the tested images themselves: an unattainable upper bound. "
        "Synthetic images are the positive class. The best is bold and the second best underlined, where means cover "
        "equally many sets."
    )
    of_corpora = {corpus: results.sets_of(corpus) for corpus in results.corpora}
    columns = list(product(results.corpora, HEADLINE if several else shown_in("main")))
    header = [
        f"{corpus}: {METRICS[metric].title}" if several else METRICS[metric].heading for corpus, metric in columns
    ]
    rows: Rows = [[head, *(value(head, m, of_corpora[corpus]) for corpus, m in columns)] for head in results.heads]
    of_sets = {
        "{}: {:,} real, {:,} synthetic images".format(name, *results.size(tested)): (tested,)
        for tested, name in results.column_names().items()
    }
    title = "Means over the test sets of each benchmark" if several else "Means over test sets"
    windows: Rows = [[owner, start, blocks] for start, blocks, owner in chosen_windows(results)]
    header_of_windows = ["Head", "First block", "Blocks"]
    return {
        "headline": Table(title, ["Head", *header], [Block("", rows)], ranked=range(1, 1 + len(header)), notes=[note]),
        "metrics": every_metric(of_corpora),
        "per_set": every_metric(of_sets),
        "windows": Table("Windows that the heads read", header_of_windows, [Block("", windows)]) if windows else None,
        "undefined": _undefined(results),
    }


def _undefined(results: Results) -> Table | None:
    """What is undefined and why; sets and heads that share a reason share a row. None where nothing is."""
    names = results.column_names()
    heads: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for head, (tested, name), metric in product(results.heads, names.items(), METRICS):
        if reason := results.why_undefined(head, tested, metric):
            heads[name, METRICS[metric].heading, reason].append(head)
    sets: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (name, metric, reason), who in heads.items():
        sets["all" if len(who) == len(results.heads) else ", ".join(who), metric, reason].append(name)
    rows = [["all" if len(of) == len(names) else ", ".join(of), *line] for line, of in sets.items()]
    header = ["Test set", "Head", "Metric", "Reason"]
    note = "These are left out of every mean."
    return Table("What is undefined, and why", header, [Block("", rows)], 4, notes=[note]) if rows else None


def _provenance(study: Study, results: Results, profiles: Sequence[AnalysisFile]) -> list[Table]:
    """Where the numbers come from."""
    features: dict[tuple[str, str], Sequence[Cell]] = {}
    heads: dict[tuple[str, int], Sequence[Cell]] = {}
    for card in results.cards:
        threshold = results.thresholds.get((card.head, card.seed))
        text = "none" if threshold is None else f"{threshold:.4f}"
        trained_on = str(card.facts.get("trained_on") or "not stated")
        features[card.corpus, card.view] = [card.corpus, card.view, card.feature_key, card.failed]
        heads[card.head, card.seed] = [card.head, str(card.seed), trained_on, text, card.head_sha256]
    settings = [
        [head, "; ".join(f"{name} {value}" for name, value in of_head.items())]
        for head, of_head in study.head_settings.items()
    ]
    observed = [[profile.corpus, profile.view, profile.feature_key] for profile in profiles]
    of_heads = ["Head", "Seed", "Trained on", "Held-out threshold (logit)", "sha256 of the head file"]
    tables: list[tuple[str, list[str], Sequence[Sequence[Cell]]]] = [
        ("Features", ["Corpus", "View", "Feature key", "Unreadable images"], list(features.values())),
        ("Head files", of_heads, list(heads.values())),
        ("Heads", ["Head", "Settings"], settings),
        ("Profiles", ["Corpus", "View", "Feature key"], observed),
        ("Programs", ["Program", "Version"], list(study.versions.items())),
    ]
    return [Table(title, header, [Block("", rows)], text_columns=len(header)) for title, header, rows in tables if rows]
