"""All measured results of a study, checked to be comparable: one line per head, one column per test set."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from stages.evaluate.means import Mean, mean_over_seeds, mean_over_sets
from stages.evaluate.metrics import METRICS, UNLABELLED, Metrics, measure_sets
from stages.evaluate.scores import HELD_OUT, ScoreCard, Scores, read_card, read_scores
from stages.evaluate.thresholds import calibrated_threshold
from stages.report.sample import Sample, same_images
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

CLEAN = "clean"


@dataclass(frozen=True, order=True)
class NamedSet:
    """A column of the tables: a named test set of a corpus."""

    corpus: str
    name: str

    @property
    def key(self) -> str:
        """``corpus/name``: unique in a study."""
        return f"{self.corpus}/{self.name}"


@dataclass(frozen=True, order=True)
class Entry:
    """A line of the tables: a head, and the degraded view it was tested on; no view stands for undegraded images."""

    head: str
    view: str = ""

    @property
    def label(self) -> str:
        """What the tables call it."""
        return f"{self.head} on {self.view}" if self.view else self.head


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes:
        entries: lines of the tables, in order: heads on undegraded images.
        views: names of the degraded views, in order of name.
        sets: columns of the tables, in order.
        cards: what each scores file is about, in order of the tables' heads, then corpus, view, seed.
        measured: entry (also of degraded views) -> seed -> set key -> metrics.
        thresholds: (head, seed) -> threshold on the logit from held-out images of its training domain.
        samples: corpus -> its images and what every head says about them, undegraded.
        missing: sets that the study asks for and that have no image: every mean over sets says that it lacks them.
    """

    entries: tuple[Entry, ...]
    views: tuple[str, ...]
    sets: tuple[NamedSet, ...]
    cards: tuple[ScoreCard, ...]
    measured: Mapping[Entry, Mapping[int, Mapping[str, Metrics]]]
    thresholds: Mapping[tuple[str, int], float]
    samples: Mapping[str, Sample] = field(compare=False)
    missing: tuple[NamedSet, ...] = ()

    def seeds(self, entry: Entry) -> tuple[int, ...]:
        """Return the seeds of an entry, ascending."""
        return tuple(sorted(self.measured.get(entry, {})))

    def by_seed(self, entry: Entry, tested: NamedSet) -> dict[int, Metrics | None]:
        """Return the metrics of a set for every seed; None where the seed has no scores of it."""
        return {seed: self.measured[entry][seed].get(tested.key) for seed in self.seeds(entry)}

    def of_set(self, entry: Entry, tested: NamedSet, metric: str) -> Mean:
        """Return mean and spread over seeds."""
        return mean_over_seeds(list(self.by_seed(entry, tested).values()), metric)

    def of_sets(self, entry: Entry, metric: str, names: Sequence[NamedSet] | None = None) -> Mean:
        """Return the mean over sets (all, or those named), its spread over seeds, and how many sets it covers."""
        by_seed = [self.measured[entry][seed] for seed in self.seeds(entry)]
        wanted = (*self.sets, *self.missing) if names is None else names
        return mean_over_sets(by_seed, [tested.key for tested in wanted], metric)

    def coverage(self, corpus: str) -> str:
        """Say how many of the sets asked for a corpus has: "6 of 8 sets"."""
        here, missing = (sum(tested.corpus == corpus for tested in sets) for sets in (self.sets, self.missing))
        return f"{here} of {here + missing} sets"

    def why_undefined(self, entry: Entry, tested: NamedSet, metric: str) -> str:
        """Return why a metric of a set is undefined for some or all seeds of an entry; empty when it is not."""
        by_seed = self.by_seed(entry, tested)
        reasons: dict[str, list[int]] = {}
        for seed, metrics in by_seed.items():
            reason = "not scored" if metrics is None else metrics.undefined.get(metric, "")
            if reason:
                reasons.setdefault(reason, []).append(seed)
        if len(reasons) == 1 and len(next(iter(reasons.values()))) == len(by_seed):
            return next(iter(reasons))
        return "; ".join(f"{reason} (seed {', '.join(map(str, seeds))})" for reason, seeds in reasons.items())

    def size(self, tested: NamedSet) -> tuple[int, int]:
        """Return (real, synthetic) image counts of a set; they are the same for every head that scored it."""
        return self.samples[tested.corpus].size(tested.name)

    def undefined(self) -> list[tuple[Entry, NamedSet, str, str]]:
        """Return (entry, set, metric, reason) of everything that is undefined on undegraded images."""
        every = ((entry, tested, metric) for entry in self.entries for tested in self.sets for metric in METRICS)
        return [(*place, why) for place in every if (why := self.why_undefined(*place))]


def load_results(
    score_files: Iterable[Path],
    *,
    heads: Sequence[str] = (),
    sets: Sequence[str] = (),
    unlabelled: int = UNLABELLED,
    names: Mapping[Path, str] | None = None,
) -> Results:
    """Read scores files and measure them.

    Args:
        score_files: any order; it changes nothing. Those of the view "held-out" give the calibrated thresholds.
        heads: heads in the order of the tables; those not named follow in order of name.
        sets: names of sets, alone or as ``corpus/name``, in the order of the protocol; those not named follow in order
            of name. Of those named with a corpus that was scored, the absent ones are kept as ``missing``.
        unlabelled: how many images set the threshold of the metric ``unlabelled_accuracy``.
        names: scores file -> what its head is called here; None: see :func:`head_names`.

    Raises:
        DataError: no file, a file is unusable, two are of the same head, seed, corpus and view, two score different
            images of one corpus view, or no image names a test set.
    """
    paths = sorted(score_files)
    cards = {path: read_card(path) for path in paths}
    called = head_names(cards) if names is None else names
    cards = {path: replace(card, head=called[path]) for path, card in cards.items()}
    _check_once(cards)
    thresholds = _thresholds(cards)
    tested = {path: card for path, card in cards.items() if card.view != HELD_OUT}
    shown = _shown_views(tested.values())
    measured: list[tuple[ScoreCard, dict[str, Metrics]]] = []
    samples: dict[tuple[str, str], Sample] = {}
    for path, card in tested.items():
        scores = read_scores(path)
        logits = _collect(samples, scores)
        if card.view == shown[card.corpus]:
            samples[card.corpus, card.view].logits[card.head, card.seed] = logits
        threshold = thresholds.get((card.head, card.seed))
        measured.append((card, measure_sets(scores, threshold=threshold, unlabelled=unlabelled)))
    found = {NamedSet(card.corpus, name) for card, by_set in measured for name in by_set}
    if not found:
        raise DataError("no scored image names a test set; give the scores files of a corpus whose manifest has `sets`")
    asked = (NamedSet(corpus, name) for corpus, _, name in (wanted.partition("/") for wanted in sets))
    table: dict[Entry, dict[int, dict[str, Metrics]]] = {}
    for card, by_set in measured:
        entry = Entry(card.head, "" if card.view == shown[card.corpus] else card.view)
        row = table.setdefault(entry, {}).setdefault(card.seed, {})
        row.update({NamedSet(card.corpus, name).key: metrics for name, metrics in by_set.items()})
    plain = [entry for entry in table if not entry.view]
    return Results(
        entries=tuple(sorted(plain, key=lambda entry: (place_in(heads, entry.head), entry))),
        views=tuple(sorted({entry.view for entry in table} - {""})),
        sets=tuple(sorted(found, key=lambda tested: (_place_of_set(sets, tested), tested))),
        cards=tuple(sorted(tested.values(), key=lambda card: (place_in(heads, card.head), _place(card)))),
        measured=table,
        thresholds=thresholds,
        samples={corpus: samples[corpus, shown[corpus]] for corpus in sorted(shown)},
        missing=tuple(wanted for wanted in asked if wanted.name and wanted.corpus in shown and wanted not in found),
    )


def place_in(order: Sequence[str], name: str | None) -> int:
    """Return the place of a name in an order; names that are not in it come after it."""
    return order.index(name) if name is not None and name in order else len(order)


def _place_of_set(order: Sequence[str], tested: NamedSet) -> int:
    """Sets may be ordered by key, ``corpus/name``, as two corpora may have sets of one name; or by name alone."""
    return place_in(order, tested.key) if tested.key in order else place_in(order, tested.name)


def head_names(cards: Mapping[Path, ScoreCard]) -> dict[Path, str]:
    """Return scores file -> what its head is called: its name, and what it was trained on where there is more than one.

    A head file does not know of the other trainings of a study, so its name alone cannot tell them apart.
    """
    corpora = {path: card.facts.get("trained_on") for path, card in cards.items()}
    several = len(set(corpora.values()) - {None}) > 1
    return {
        path: f"{card.head} ({corpora[path]})" if several and corpora[path] else card.head
        for path, card in cards.items()
    }


def _place(card: ScoreCard) -> tuple[str, str, str, int]:
    return card.head, card.corpus, card.view, card.seed


def _check_once(cards: Mapping[Path, ScoreCard]) -> None:
    seen: dict[tuple[str, str, str, int], ScoreCard] = {}
    for path, card in cards.items():
        twin = seen.setdefault(_place(card), card)
        # the held-out scores of a head lie beside those of each corpus; they are the same
        if twin is not card and (card.view != HELD_OUT or card.head_sha256 != twin.head_sha256):
            raise DataError(f"{path}: scores of head {card.head!r}, seed {card.seed} are there twice; delete one file")


def _thresholds(cards: Mapping[Path, ScoreCard]) -> dict[tuple[str, int], float]:
    thresholds: dict[tuple[str, int], float] = {}
    for path, card in cards.items():
        if card.view == HELD_OUT and (card.head, card.seed) not in thresholds:
            scores = read_scores(path)
            threshold = calibrated_threshold(scores.label, scores.logit)
            if threshold is not None:
                thresholds[card.head, card.seed] = threshold
    return thresholds


def _shown_views(cards: Iterable[ScoreCard]) -> dict[str, str]:
    """Return corpus -> the view that stands for undegraded images: "clean", else the first by name."""
    views: dict[str, set[str]] = defaultdict(set)
    for card in cards:
        views[card.corpus].add(card.view)
    return {corpus: CLEAN if CLEAN in found else min(found) for corpus, found in views.items()}


def _collect(samples: dict[tuple[str, str], Sample], scores: Scores) -> NDArray[np.float64]:
    """Check a file's images against the sample of its corpus view, and return its logits in the sample's order."""
    place = (scores.card.corpus, scores.card.view)
    if place not in samples:
        samples[place] = Sample.of(scores)
    order = same_images(samples[place], scores)
    if order is None:
        first = samples[place]
        raise DataError(
            f"{first.source} and {scores.source} score different images of corpus {scores.card.corpus!r} "
            f"({len(first)} and {len(scores)}), so they cannot be compared; run `ltdpipe evaluate` again for both"
        )
    return scores.logit[order]
