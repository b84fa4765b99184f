"""What the LTD paper claims, and what this study says of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stages.measure.metrics import METRICS
from stages.report.published import MARKS, published
from stages.report.sweeps import means_by
from stages.report.table import Block, Table, Value, to_markdown
from stages.report.tables import HEADLINE, PAPER_METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stages.analyse.files import AnalysisFile
    from stages.report.results import NamedSet, Results
    from stages.report.sweeps import Sweeps
    from stages.report.table import Cell, Rows

    SetLists = Mapping[str, Sequence[str]]
    # (benchmark, what was found, verdict)
    Found = Iterator[list[Cell]]

REPRODUCED, NOT_REPRODUCED = "reproduced within the interval", "not reproduced within the interval"
ONE_SEED = "not compared: outside the interval of one seed"
HOLDS, FAILS, UNDECIDED, UNTESTED = "holds", "does not hold", "not decided", "not tested here"
_VERDICTS = (HOLDS, FAILS, UNDECIDED)


def claims_table(
    results: Results, sweeps: Sweeps, windows: Sequence[AnalysisFile], set_lists: SetLists
) -> Table | None:
    """Give a verdict on every claim that is no figure, benchmark by benchmark; None where the study tests none."""
    content = published()
    words, claim = content["words"], content["windows"]
    n, start, (first, last) = claim["length"], claim["start"], claim["candidates"]
    share, enough = words["univfd_gain"] / 100, words["enough_within"] / 100

    def compared(one: str, other: str, limit: float = 0.0, *, below: bool = False) -> Found:
        return _compared(results, one, other, limit, below=below)

    # claim -> (what a study needs to test it, what was found)
    claims: dict[str, tuple[str, Found]] = {
        text: (f"the heads {one} and {other}", compared(one, other)) for text, one, other in words["better"]
    }
    text = f"LTD gains {words['univfd_gain']} percentage points over UnivFD"
    claims[text] = "the heads ltd and univfd", compared("ltd", "univfd", share)
    for text, one, more in words["enough"]:
        claims[text] = f"the heads {one} and {more}", compared(more, one, enough, below=True)
    claims["of all ablations, both branches with positions have the best mean of UFD and DRCT-2M"] = (
        "the heads of the ablation, trained and tested as in the paper", _ablation_mean(results, set_lists),
    )  # fmt: skip
    for view, name in {"jpeg-60": "JPEG 60", "scale-0.5": "half the size"}.items():
        claims[f"LTD is the most accurate head at {name}"] = f"the view {view}", _most_robust(results, view)
    claims[f"windows of {n} blocks are best"] = "`ltdpipe sweep window`", _lengths(sweeps, n)
    claims["windows in the middle, blocks 8 to 15, tell more than shallower and deeper ones"] = (
        "`ltdpipe sweep window` over all blocks", _bands(sweeps, claim),
    )  # fmt: skip
    claims[f"the middle blocks, {first} to {last}, tell most"] = "`ltdpipe sweep layer`", _blocks(sweeps, claim)
    move = f"synthetic images move more in blocks {start} to {start + n - 1}"
    claims[move] = "`ltdpipe analyse`", _movement(windows, start, n)
    rows: Rows = []
    for text, (needs, found) in claims.items():
        rows += [[text, *row] for row in found] or [[text, None, f"needs {needs}", UNTESTED]]
    notes = [
        "Accuracy at score 0.5, means over the test sets of a benchmark. Of two heads: the difference in percentage "
        "points with its 95 % interval; where that does not decide, nothing is decided. With one seed per head it is "
        "of these weights, not of the methods. Ablations, windows, blocks and degraded images are compared by their "
        "means alone.",
        f"A setting is enough where more of it gains less than {words['enough_within']} percentage point, and the "
        f"whole interval says so. Source of the claims ({MARKS[words['mark']]}): {words['source']}.",
    ]
    header = ["claim", "benchmark", "found here", "verdict"]
    table = Table("Claims of the paper", header, [Block("", rows)], text_columns=4, notes=notes)
    return table if any(row[-1] != UNTESTED for row in rows) else None


def counted(claims: Table) -> Table:
    """Return for each tested claim how often it has which verdict; a note names those that are not tested."""
    verdicts: dict[Cell, Counter[Cell]] = defaultdict(Counter)
    for claim, *_, verdict in (row for block in claims.blocks for row in block.rows):
        verdicts[claim][verdict] += 1
    tested = {claim: of_claim for claim, of_claim in verdicts.items() if UNTESTED not in of_claim}
    rows: Rows = [[claim, *(of_claim[verdict] for verdict in _VERDICTS)] for claim, of_claim in tested.items()]
    untested = "; ".join(str(claim) for claim in verdicts if claim not in tested)
    notes = ["Number of benchmarks, each training counted by itself."]
    notes += [f"Not tested here: {untested}. The table below says what each needs."] if untested else []
    return Table(claims.title, ["claim", *_VERDICTS], [Block("", rows)], notes=[*notes, *claims.notes])


def _compared(results: Results, one: str, other: str, limit: float, *, below: bool) -> Found:
    """Whether ``one`` gains more than ``limit`` over ``other``, or, with ``below``, less."""
    trainings = sorted({str(card.facts.get("trained_on")) for card in results.cards})
    named = [(one, other), *((f"{one} ({trained})", f"{other} ({trained})") for trained in trainings)]
    for pair, corpus in product(named, results.corpora):
        if set(pair) <= set(results.heads) and (gain := results.gain(*pair, "accuracy", results.sets_of(corpus))):
            value, low, high = (f"{round(100 * number, 2) + 0.0:+.2f}" for number in gain[:3])
            above, under = gain.low > limit, gain.high < limit
            verdict = UNDECIDED if not above and not under else HOLDS if under == below else FAILS
            yield [corpus, f"{pair[0]} minus {pair[1]}: {value} ({low} to {high})", verdict]


def _ablation_mean(results: Results, set_lists: SetLists) -> Found:
    """The mean of the benchmarks that the paper ablates on, of each head trained for them as the paper does."""
    ablated = published()["ablation"]["set_lists"]
    means: dict[str, list[tuple[float, float]]] = {
        claim["head"]: [] for claim in published()["claims"] if claim["set_list"] in ablated
    }
    for claim in published()["claims"]:
        head, sets, members = _located(results, claim, set_lists)
        if head and claim["set_list"] in ablated and len(sets) == len(members):
            mean = results.of_sets(head, "accuracy", sets)
            if mean.value is not None and mean.count == len(sets):
                means[claim["head"]].append((100 * mean.value, claim["accuracy"]))
    if all(len(pairs) == len(ablated) for pairs in means.values()):
        of_both = {head: [fmean(pair) for pair in zip(*pairs, strict=True)] for head, pairs in means.items()}
        text = "; ".join(f"{head}: {here:.2f} (published {stated:.2f})" for head, (here, stated) in of_both.items())
        best = max(of_both, key=lambda head: of_both[head][0])
        yield ["mean of the two", text, HOLDS if best == "ltd" else FAILS]


def _most_robust(results: Results, view: str) -> Found:
    for corpus in results.corpora:
        means = {head: results.of_corpus(head, "accuracy", corpus, view).value for head in results.heads}
        values = {head: value for head, value in means.items() if value is not None}
        ltd = [head for head in values if head == "ltd" or head.startswith("ltd (")]
        if ltd and len(values) > 1:
            best, own = max(values, key=lambda head: values[head]), max(ltd, key=lambda head: values[head])
            text = f"{own}: {100 * values[own]:.2f}; best is {best}: {100 * values[best]:.2f}"
            yield [corpus, text, HOLDS if best == own else FAILS]


def _best(sweeps: Sweeps, kind: str, column: str) -> Iterator[tuple[str, Any, dict[Any, float]]]:
    """Yield title, which value of a column of a sweep has the greatest mean accuracy, and the means."""
    if kind in sweeps:
        for title, found in means_by(sweeps[kind], [column], "accuracy").items():
            means = {value: 100 * (mean.value or 0.0) for (value,), mean in found.items()}
            if means:
                yield title, max(means, key=lambda value: means[value]), means


def _lengths(sweeps: Sweeps, published_best: int) -> Found:
    for title, best, means in _best(sweeps, "window", "n"):
        if published_best in means:
            found = ", ".join(f"{n}: {mean:.2f}" for n, mean in means.items())
            yield [title, f"mean over starts, {found}", HOLDS if best == published_best else FAILS]


def _bands(sweeps: Sweeps, claim: Mapping[str, Any]) -> Found:
    last = dict(claim["bands"])
    for title, best, means in _best(sweeps, "window", "band"):
        found = ", ".join(f"{first} to {last[first]}: {mean:.2f}" for first, mean in means.items())
        yield [title, f"mean over the windows within blocks {found}", HOLDS if best == claim["band"] else FAILS]


def _blocks(sweeps: Sweeps, claim: Mapping[str, Any]) -> Found:
    first, last = claim["candidates"]
    for title, best, means in _best(sweeps, "layer", "block"):
        if len(means) == claim["blocks"]:  # the paper's backbone, or one as deep
            yield [title, f"block {best} is best: {means[best]:.2f}", HOLDS if first <= best <= last else FAILS]


def _movement(windows: Sequence[AnalysisFile], start: int, n: int) -> Found:
    for file in windows:
        for row in file.table.to_pylist():
            if row["generator"] is None and (row["start"], row["blocks"]) == (start, n):
                auc, n_real, n_fake = row["auc_cosine"], row["n_real"], row["n_fake"]
                by_chance = 1.96 * ((n_real + n_fake + 1) / (12 * n_real * n_fake)) ** 0.5  # of Mann and Whitney
                verdict = UNDECIDED if abs(auc - 0.5) < by_chance else HOLDS if auc > 0.5 else FAILS
                yield [file.corpus, f"AUC of the cosine distance {auc:.3f}, without training", verdict]


def gains_table(results: Results) -> Table | None:
    """How much the first head gains over each other one, benchmark by benchmark; None with a single head."""
    first, *others = results.heads
    blocks = []
    for metric in HEADLINE:
        rows: Rows = []
        for other, corpus in product(others, results.corpora):
            if gain := results.gain(first, other, metric, results.sets_of(corpus)):
                rows.append([other, corpus, *(Value(number, signed=True) for number in gain[:3]), gain.p])
        blocks.append(Block(METRICS[metric].title, rows))
    notes = [
        f"{first} minus the other head, means over the test sets that both cover, in percentage points, with the 95 % "
        "interval. p is that of this pair alone: the more heads are compared, the likelier one is small by chance."
    ]
    header = ["other head", "benchmark", "gain", "low", "high", "p"]
    table = Table(f"Gains of {first}", header, blocks, text_columns=2, block_name="metric", notes=notes)
    return table if any(block.rows for block in blocks) else None


def _located(
    results: Results, claim: Mapping[str, Any], set_lists: SetLists
) -> tuple[str | None, Sequence[NamedSet], Sequence[str]]:
    """Return the study's head of a claim, None where it has none, the sets to compare it on, and all of the list.

    The sets are those of the corpus that has most of the list.
    """
    members, trained_on = set_lists.get(claim["set_list"], ()), claim["trained_on"]
    trained = {card.head: card.facts.get("trained_on") for card in results.cards}
    named = [name for name in (claim["head"], f"{claim['head']} ({trained_on})") if trained.get(name) == trained_on]
    of_corpora = [[t for t in results.sets if t.corpus == corpus and t.name in members] for corpus in results.images]
    head = named[0] if named and named[0] in results.heads else None
    return head, max(of_corpora, key=len, default=[]), members


def reproduction_table(results: Results, set_lists: SetLists) -> Table | None:
    """Compare every published figure that this study tests; None where it tests none.

    A figure is tested when the study has its head, trained on its corpus (names as in ``profiles/paper.yaml``), and a
    corpus with its test sets. Where some of the sets are missing, it is listed and not compared.
    """
    rows: Rows = []
    for claim in published()["claims"]:
        head, sets, members = _located(results, claim, set_lists)
        if head is None or not sets:
            continue
        coverage, whole = f"{claim['set_list']}, {len(sets)} of {len(members)} sets", len(sets) == len(members)
        for metric in PAPER_METRICS:
            if metric in claim:
                stated = claim[metric] / 100
                here = _beside(stated, results, head, metric, sets, whole=whole)
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
    """Say in a sentence how many of the figures are reproduced."""
    if table is None:
        return "This study tests no figure of the paper: it has other heads, training corpora or test sets."
    verdicts = [row[-1] for block in table.blocks for row in block.rows]
    kept, broken = verdicts.count(REPRODUCED), verdicts.count(NOT_REPRODUCED)
    left = len(verdicts) - kept - broken
    if not kept + broken:
        return f"None of {left} figures could be compared; the table says why."
    text = f"{kept} of {kept + broken} compared figures are reproduced within their interval"
    return f"{text}; {left} could not be compared." if left else f"{text}."


def reproduction_page(study: str, tables: Mapping[str, Table | None]) -> str:
    """Return REPRODUCTION.md; ``tables`` are those of the report by name."""
    parts = ["# Reproduction of the LTD paper", f"Made by the report stage of the study `{study}`."]
    parts.append(verdict(tables["reproduction"]))
    for name, heading in (("reproduction", "Figures"), ("claims", "Claims"), ("elsewhere", "Elsewhere")):
        if (table := tables[name]) is not None:
            parts += [f"## {heading}", to_markdown(table).partition("\n\n")[2].rstrip()]
    return "\n\n".join([*parts, "`dvc repro` makes it again, or, from the stored scores alone, `ltdpipe report`.\n"])


def _beside(
    stated: float, results: Results, head: str, metric: str, sets: Sequence[NamedSet], *, whole: bool
) -> list[Cell]:
    """Return the value here, the ends of its interval, the difference, and the verdict."""
    mean = results.of_sets(head, metric, sets)
    if mean.value is None or mean.count < len(sets):
        return [None, None, None, None, f"not compared: defined on {mean.count} of {len(sets)} sets"]
    of_method = results.interval_of_method(head, metric, sets)
    interval = of_method or results.interval(head, metric, sets)
    verdict = "not compared: no interval" if whole else "not compared: sets are missing"
    if whole and interval is not None:
        # a published figure is rounded to a hundredth of a percent
        inside = interval[0] - 0.5e-4 <= stated <= interval[1] + 0.5e-4
        verdict = REPRODUCED if inside else NOT_REPRODUCED if of_method else ONE_SEED
    ends = [None, None] if interval is None else map(Value, interval)
    return [Value(mean.value), *ends, Value(mean.value - stated, signed=True), verdict]
