"""All measured results of a study, checked to be comparable: one line per head, one column per test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.evaluate.metrics import METRICS, Mean, Metrics, mean_over_seeds, mean_over_sets, measure_sets
from stages.evaluate.scores import ScoreCard, Scores, read_scores
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


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
    """A line of the tables: a head, and the view it was tested on where the study has several views of a corpus."""

    head: str
    view: str = ""

    @property
    def label(self) -> str:
        """What the tables call it."""
        return f"{self.head} on {self.view}" if self.view else self.head


@dataclass(frozen=True)
class Corpus:
    """How many images of a corpus view were scored and how many could not be read."""

    name: str
    view: str
    n_real: int
    n_fake: int
    failed: int
    in_no_set: int


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes:
        entries: lines of the tables, in order.
        sets: columns of the tables, in order.
        cards: what each scores file is about, in order of the tables' heads, then corpus, view, seed.
        corpora: the images that were scored.
        measured: entry -> seed -> set key -> metrics.
    """

    entries: tuple[Entry, ...]
    sets: tuple[NamedSet, ...]
    cards: tuple[ScoreCard, ...]
    corpora: tuple[Corpus, ...]
    measured: Mapping[Entry, Mapping[int, Mapping[str, Metrics]]]

    def seeds(self, entry: Entry) -> tuple[int, ...]:
        """Return the seeds of an entry, ascending."""
        return tuple(sorted(self.measured[entry]))

    def by_seed(self, entry: Entry, tested: NamedSet) -> dict[int, Metrics | None]:
        """Return the metrics of a set for every seed; None where the seed has no scores of it."""
        return {seed: self.measured[entry][seed].get(tested.key) for seed in self.seeds(entry)}

    def of_set(self, entry: Entry, tested: NamedSet, metric: str) -> Mean:
        """Return mean and spread over seeds."""
        return mean_over_seeds(list(self.by_seed(entry, tested).values()), metric)

    def of_sets(self, entry: Entry, metric: str) -> Mean:
        """Return the mean over sets, its spread over seeds, and how many of the sets it covers."""
        by_seed = [self.measured[entry][seed] for seed in self.seeds(entry)]
        return mean_over_sets(by_seed, [tested.key for tested in self.sets], metric)

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
        found = (m for seeds in self.measured.values() for sets in seeds.values() if (m := sets.get(tested.key)))
        metrics = next(found)
        return metrics.n_real, metrics.n_fake

    def undefined(self) -> list[tuple[Entry, NamedSet, str, str]]:
        """Return (entry, set, metric, reason) of everything that is undefined."""
        every = ((entry, tested, metric) for entry in self.entries for tested in self.sets for metric in METRICS)
        return [(*place, why) for place in every if (why := self.why_undefined(*place))]


def load_results(score_files: Iterable[Path], *, heads: Sequence[str] = (), sets: Sequence[str] = ()) -> Results:
    """Read scores files and measure them.

    Args:
        score_files: any order; it changes nothing.
        heads: heads in the order of the tables; those not named follow in order of name.
        sets: names of sets in the order of the protocol; those not named follow in order of name.

    Raises:
        DataError: no file, a file is unusable, two are of the same head, seed, corpus and view, two score different
            images of one corpus view, or no image names a test set.
    """
    cards: dict[tuple[str, str, str, int], ScoreCard] = {}
    first: dict[tuple[str, str], Scores] = {}
    measured: list[tuple[ScoreCard, dict[str, Metrics]]] = []
    for path in sorted(score_files):
        scores = read_scores(path)
        card = scores.card
        place = (card.head, card.corpus, card.view, card.seed)
        if place in cards:
            raise DataError(f"{path}: scores of head {card.head!r}, seed {card.seed} are there twice; delete one file")
        cards[place] = card
        _check_same_images(first.setdefault((card.corpus, card.view), scores), scores)
        measured.append((card, measure_sets(scores)))
    corpora = tuple(_corpus(scores) for _, scores in sorted(first.items()))
    several_views = len({corpus for corpus, _ in first}) < len(first)
    found = {NamedSet(card.corpus, name) for card, by_set in measured for name in by_set}
    if not found:
        raise DataError("no scored image names a test set; give the scores files of a corpus whose manifest has `sets`")
    table: dict[Entry, dict[int, dict[str, Metrics]]] = {}
    for card, by_set in measured:
        entry = Entry(card.head, card.view if several_views else "")
        row = table.setdefault(entry, {}).setdefault(card.seed, {})
        row.update({NamedSet(card.corpus, name).key: metrics for name, metrics in by_set.items()})
    return Results(
        entries=tuple(sorted(table, key=lambda entry: (_rank(entry.head, heads), entry))),
        sets=tuple(sorted(found, key=lambda tested: (_rank(tested.name, sets), tested))),
        cards=tuple(card for _, card in sorted(cards.items(), key=lambda item: (_rank(item[0][0], heads), item[0]))),
        corpora=corpora,
        measured=table,
    )


def _rank(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _corpus(scores: Scores) -> Corpus:
    n_fake = int((scores.label == 1).sum())
    in_sets = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *scores.members.values()]))
    card = scores.card
    return Corpus(card.corpus, card.view, len(scores) - n_fake, n_fake, card.failed, len(scores) - len(in_sets))


def _check_same_images(first: Scores, other: Scores) -> None:
    """Heads and seeds are only comparable on the same images with the same labels in the same sets."""
    same = len(first) == len(other) and first.members.keys() == other.members.keys()
    if same:
        mine, theirs = np.argsort(first.path), np.argsort(other.path)
        same = bool(np.all(first.path[mine] == other.path[theirs]))
        same = same and bool(np.all(first.label[mine] == other.label[theirs]))
        rank = np.argsort(mine), np.argsort(theirs)
        same = same and all(
            np.array_equal(np.sort(rank[0][rows]), np.sort(rank[1][other.members[name]]))
            for name, rows in first.members.items()
        )
    if not same:
        raise DataError(
            f"{first.source} and {other.source} score different images of corpus {first.card.corpus!r} "
            f"({len(first)} and {len(other)}), so they cannot be compared; run `ltdpipe evaluate` again for both"
        )
