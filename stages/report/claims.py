"""What the LTD paper claims, and what this study says of it."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING

from stages.measure.metrics import METRICS
from stages.report.published import MARKS, published
from stages.report.table import Block, Table, Value, to_markdown
from stages.report.tables import HEADLINE, PAPER_METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.report.intervals import Uncertainty
    from stages.report.results import NamedSet, Results
    from stages.report.sweeps import Column
    from stages.report.table import Cell, Rows

REPRODUCED, NOT_REPRODUCED = "reproduced within the interval", "not reproduced within the interval"
ONE_SEED = "not compared: outside the interval of one seed"
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "not decided"


def claims_table(
    results: Results,
    uncertainty: Uncertainty,
    sweeps: Mapping[str, Sequence[Column]],
    windows: Sequence[AnalysisFile],
) -> Table | None:
    """Give a verdict on every claim that is no figure, benchmark by benchmark; None where the study has data for none.

    Args:
        results: what was measured.
        uncertainty: its replicates.
        sweeps: kind -> its columns.
        windows: how well windows separate without training.
    """
    rows: Rows = [
        *_better(results, uncertainty),
        *_most_robust(results),
        *_best_windows(sweeps),
        *_movement(windows),
    ]
    notes = [
        "Accuracy at score 0.5, means over the test sets of a benchmark. Of two heads: the difference in percentage "
        "points with its 95 % interval; where that holds 0, nothing is decided. With one seed per head it is of these "
        "weights, not of the methods. Windows, blocks and degraded images are compared by their means alone.",
    ]
    header = ["claim", "benchmark", "found here", "verdict"]
    return Table("Claims of the paper", header, [Block("", rows)], text_columns=4, notes=notes) if rows else None


def counted(claims: Table) -> Table:
    """Return for each claim in how many cases it holds, does not hold, or is not decided."""
    verdicts: dict[Cell, list[Cell]] = defaultdict(list)
    for claim, *_, verdict in (row for block in claims.blocks for row in block.rows):
        verdicts[claim].append(verdict)
    rows: Rows = [
        [claim, *(of_claim.count(verdict) for verdict in (HOLDS, FAILS, UNDECIDED))]
        for claim, of_claim in verdicts.items()
    ]
    notes = ["Number of benchmarks, each training counted by itself.", *claims.notes]
    return Table(claims.title, ["claim", HOLDS, FAILS, UNDECIDED], [Block("", rows)], notes=notes)


def _better(results: Results, uncertainty: Uncertainty) -> Iterator[list[Cell]]:
    trainings = {card.facts.get("trained_on") for card in results.cards}
    for (claim, one, other), trained_on in product(published()["better"], sorted(map(str, trainings))):
        pairs = [(one, other), (f"{one} ({trained_on})", f"{other} ({trained_on})")]
        pair = next((pair for pair in pairs if set(pair) <= set(results.heads)), None)
        if pair is None:
            continue
        for corpus in results.corpora:
            gain = uncertainty.gain(*pair, "accuracy", results.sets_of(corpus))
            if gain is not None:
                value, low, high = (f"{round(100 * number, 2) + 0.0:+.2f}" for number in gain[:3])
                verdict = HOLDS if gain.low > 0 else FAILS if gain.high < 0 else UNDECIDED
                yield [claim, corpus, f"{pair[0]} minus {pair[1]}: {value} ({low} to {high})", verdict]


def _most_robust(results: Results) -> Iterator[list[Cell]]:
    for corpus, (view, name) in product(results.corpora, {"jpeg-60": "JPEG 60", "scale-0.5": "half the size"}.items()):
        means = {head: results.of_corpus(head, "accuracy", corpus, view).value for head in results.heads}
        values = {head: value for head, value in means.items() if value is not None}
        ltd = [head for head in values if head == "ltd" or head.startswith("ltd (")]
        if ltd and len(values) > 1:
            best, own = max(values, key=lambda head: values[head]), max(ltd, key=lambda head: values[head])
            text = f"{own}: {100 * values[own]:.2f}; best is {best}: {100 * values[best]:.2f}"
            yield [f"LTD is the most accurate head at {name}", corpus, text, HOLDS if best == own else FAILS]


def _best_windows(sweeps: Mapping[str, Sequence[Column]]) -> Iterator[list[Cell]]:
    claim = published()["windows"]
    first, last = claim["candidates"]
    for column in sweeps.get("window", ()):
        lengths = column.means["accuracy"].groupby("n").mean()
        if claim["length"] in lengths:
            text = "mean over starts, " + ", ".join(f"{n}: {100 * value:.2f}" for n, value in lengths.items())
            verdict = HOLDS if lengths.idxmax() == claim["length"] else FAILS
            yield [f"windows of {claim['length']} blocks are best", column.title, text, verdict]
    for column in sweeps.get("layer", ()):
        blocks = column.means["accuracy"].groupby("block").mean()
        if len(blocks) == claim["blocks"]:  # the paper's backbone, or one as deep
            best = blocks.idxmax()
            text = f"block {best} is best: {100 * blocks.max():.2f}"
            verdict = HOLDS if first <= best <= last else FAILS
            yield [f"the middle blocks, {first} to {last}, tell most", column.title, text, verdict]


def _movement(windows: Sequence[AnalysisFile]) -> Iterator[list[Cell]]:
    claim = published()["windows"]
    start, n = claim["start"], claim["length"]
    for file in windows:
        for row in file.table.to_pylist():
            if row["generator"] is None and (row["start"], row["blocks"]) == (start, n):
                auc, n_real, n_fake = row["auc_cosine"], row["n_real"], row["n_fake"]
                text = f"AUC of the cosine distance {auc:.3f}, without training"
                by_chance = 1.96 * ((n_real + n_fake + 1) / (12 * n_real * n_fake)) ** 0.5  # of Mann and Whitney
                verdict = UNDECIDED if abs(auc - 0.5) < by_chance else HOLDS if auc > 0.5 else FAILS
                yield [f"synthetic images move more in blocks {start} to {start + n - 1}", file.corpus, text, verdict]


def gains_table(results: Results, uncertainty: Uncertainty) -> Table | None:
    """How much the first head gains over each other one, benchmark by benchmark; None with a single head."""
    first, *others = results.heads
    blocks = []
    for metric in HEADLINE:
        rows: Rows = []
        for other, corpus in product(others, results.corpora):
            gain = uncertainty.gain(first, other, metric, results.sets_of(corpus))
            if gain is not None:
                rows.append([other, corpus, *(Value(number, signed=True) for number in gain[:3]), gain.p])
        blocks.append(Block(METRICS[metric].title, rows))
    notes = [
        f"{first} minus the other head, means over the test sets that both cover, in percentage points, with the 95 % "
        "interval. p is that of this pair alone: the more heads are compared, the likelier one is small by chance."
    ]
    header = ["other head", "benchmark", "gain", "low", "high", "p"]
    table = Table(f"Gains of {first}", header, blocks, text_columns=2, block_name="metric", notes=notes)
    return table if any(block.rows for block in blocks) else None


def reproduction_table(
    results: Results, uncertainty: Uncertainty, set_lists: Mapping[str, Sequence[str]]
) -> Table | None:
    """Compare every published claim that this study tests; None where it tests none.

    A claim is tested when the study has its head, trained on its corpus (names as in ``profiles/paper.yaml``), and a
    corpus with its test sets. Where some of the sets are missing, it is listed and not compared.

    Args:
        results: what was measured.
        uncertainty: its replicates.
        set_lists: name -> members.
    """
    trained = {card.head: card.facts.get("trained_on") for card in results.cards}
    rows: Rows = []
    for claim in published()["claims"]:
        members = set_lists.get(claim["set_list"], ())
        label = f"{claim['head']} ({claim['trained_on']})"
        head = next((name for name in (claim["head"], label) if trained.get(name) == claim["trained_on"]), None)
        # of the corpus that has most of the list
        of_corpora = [[t for t in results.sets if t.corpus == c and t.name in members] for c in results.images]
        sets = max(of_corpora, key=len, default=[])
        if not sets or head not in results.heads:
            continue
        coverage = f"{claim['set_list']}, {len(sets)} of {len(members)} sets"
        for metric in PAPER_METRICS:
            if metric in claim:
                stated = claim[metric] / 100
                here = _beside(stated, uncertainty, head, metric, sets, whole=len(sets) == len(members))
                rows.append([claim["what"], head, coverage, METRICS[metric].title, Value(stated), *here])
    header = ["claim", "head", "test sets", "metric", "published", "here", "low", "high", "difference", "verdict"]
    notes = [
        "Percent. low and high: 95 % interval of the mean over sets and seeds that another training and other test "
        "images may give; with one seed over test images alone, which may confirm a figure and never refutes one.",
        f"Published: {MARKS['secondary']} (LTD paper, arXiv 2603.10598). The authors choose the best epoch on test "
        "images and draw windows at random in evaluation; this study does neither.",
    ]
    return Table("Reproduction of the paper", header, [Block("", rows)], 4, notes=notes) if rows else None


def verdict(table: Table | None) -> str:
    """Say in a sentence how many of the claims are reproduced."""
    if table is None:
        return "This study tests no figure of the paper: it has other heads, training corpora or test sets."
    verdicts = [row[-1] for block in table.blocks for row in block.rows]
    kept, broken = verdicts.count(REPRODUCED), verdicts.count(NOT_REPRODUCED)
    left = len(verdicts) - kept - broken
    if not kept + broken:
        return f"None of {left} figures could be compared; the table says why."
    text = f"{kept} of {kept + broken} compared figures are reproduced within their interval"
    return f"{text}; {left} could not be compared." if left else f"{text}."


def reproduction_page(study: str, tables: Mapping[str, Table | None], commands: Sequence[str]) -> str:
    """Return REPRODUCTION.md; ``tables`` are those of the report by name."""
    parts = ["# Reproduction of the LTD paper", f"Made by the report stage of the study `{study}`."]
    parts.append(verdict(tables["reproduction"]))
    for name, heading in (("reproduction", "Figures"), ("claims", "Claims"), ("elsewhere", "Elsewhere")):
        if (table := tables[name]) is not None:
            parts += [f"## {heading}", to_markdown(table).partition("\n\n")[2].rstrip()]
    typed = [line if line.startswith("#") else f"$ {line}" for line in commands]
    return "\n\n".join([*parts, "To make it again:", "\n".join(["```console", *typed, "```", ""])])


def _beside(
    stated: float, uncertainty: Uncertainty, head: str, metric: str, sets: Sequence[NamedSet], *, whole: bool
) -> list[Cell]:
    """Return the value here, the ends of its interval, the difference, and the verdict."""
    mean = uncertainty.results.of_sets(head, metric, sets)
    if mean.value is None or mean.count < len(sets):
        return [None, None, None, None, f"not compared: defined on {mean.count} of {len(sets)} sets"]
    of_method = uncertainty.of_method(head, metric, sets)
    interval = of_method or uncertainty.of_sets(head, metric, sets)
    verdict = "not compared: no interval" if whole else "not compared: sets are missing"
    if whole and interval is not None:
        # a published figure is rounded to a hundredth of a percent
        inside = interval[0] - 0.5e-4 <= stated <= interval[1] + 0.5e-4
        verdict = REPRODUCED if inside else NOT_REPRODUCED if of_method else ONE_SEED
    ends = [None, None] if interval is None else map(Value, interval)
    return [Value(mean.value), *ends, Value(mean.value - stated, signed=True), verdict]
