"""All measured results of a study, checked to be comparable: one line per head, one column per test set."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from stages.evaluate.scores import HELD_OUT, ScoreCard, Scores, read_card, read_scores
from stages.measure.frame import Mean, mean_of, mean_over_sets, measure_sets
from stages.measure.metrics import METRICS, UNLABELLED, calibrated_threshold
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CLEAN = "clean"
NOT_SCORED = "not scored"


class NamedSet(NamedTuple):
    """A column of the tables: a named test set of a corpus."""

    corpus: str
    name: str

    @property
    def key(self) -> str:
        """``corpus/name``: unique in a study."""
        return f"{self.corpus}/{self.name}"


class BySeed(NamedTuple):
    """A metric of a set, seed by seed: its values, NaN where undefined, and then why."""

    seeds: Sequence[int] = ()
    values: Sequence[float] = ()
    why: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Results:
    """The results of a study. A head's ``view`` is the degraded view it was tested on; none: undegraded images.

    Attributes:
        heads: lines of the tables, in order.
        views: names of the degraded views, in order of name.
        sets: columns of the tables, in order.
        cards: what each scores file is about, in order of the tables' heads, then corpus, view, seed.
        frame: a row for each head, view, seed, set and metric, in that order, as ``measure_sets`` gives them; where a
            seed has no scores of a set, ``why`` is "not scored".
        thresholds: (head, seed) -> threshold on the logit from held-out images of its training domain.
        images: corpus -> its undegraded images, as in the first of their scores files.
        logits: corpus -> (head, seed) -> (N,) logits of these images.
        missing: sets that the study asks for and that have no image: every mean over sets says that it lacks them.
    """

    heads: tuple[str, ...]
    views: tuple[str, ...]
    sets: tuple[NamedSet, ...]
    cards: tuple[ScoreCard, ...]
    frame: pd.DataFrame
    thresholds: Mapping[tuple[str, int], float]
    images: Mapping[str, Scores]
    logits: Mapping[str, Mapping[tuple[str, int], NDArray[np.float64]]]
    missing: tuple[NamedSet, ...] = ()

    @cached_property
    def _measured(self) -> Mapping[tuple[str, str, str, str, str], BySeed]:
        """(head, view, corpus, set, metric) -> what was measured there."""
        places = self.frame.groupby(["head", "view", "corpus", "set", "metric"], sort=False)
        lists = places[["seed", "value", "why"]].agg(list)
        return {place: BySeed(*columns) for place, *columns in lists.itertuples()}

    @cached_property
    def _scored(self) -> Collection[tuple[str, str, str]]:
        scored = self.frame.loc[self.frame["why"] != NOT_SCORED, ["head", "corpus", "view"]]
        return set(scored.itertuples(index=False, name=None))

    def by_seed(self, head: str, tested: NamedSet, metric: str, view: str = "") -> BySeed:
        """Return a metric of a set seed by seed; no seed where the head has not scored the view."""
        return self._measured.get((head, view, *tested, metric), BySeed())

    def seeds(self, head: str) -> tuple[int, ...]:
        """Return the seeds of a head, ascending."""
        return tuple(self.by_seed(head, self.sets[0], next(iter(METRICS))).seeds)

    def scored(self, head: str, corpus: str, view: str = "") -> bool:
        """Say whether any seed of a head has scored a test set of a view of a corpus."""
        return (head, corpus, view) in self._scored

    def of_set(self, head: str, tested: NamedSet, metric: str, view: str = "") -> Mean:
        """Return mean and spread over seeds."""
        return mean_of(self.by_seed(head, tested, metric, view).values)

    def of_sets(self, head: str, metric: str, names: Sequence[NamedSet], view: str = "") -> Mean:
        """Return the mean over sets, its spread over seeds, and how many of the sets it covers."""
        return mean_over_sets([self.by_seed(head, tested, metric, view).values for tested in names])

    def of_corpus(self, head: str, metric: str, corpus: str, view: str = "") -> Mean:
        """Return the mean over the test sets of a corpus: papers report each benchmark by itself."""
        return self.of_sets(head, metric, self.sets_of(corpus), view)

    @property
    def corpora(self) -> tuple[str, ...]:
        """The benchmarks: corpora with a test set, in the order of the columns."""
        return tuple(dict.fromkeys(tested.corpus for tested in self.sets))

    def sets_of(self, corpus: str) -> tuple[NamedSet, ...]:
        """Return the sets that the mean of a corpus is asked to cover, those without images last."""
        return tuple(tested for tested in (*self.sets, *self.missing) if tested.corpus == corpus)

    def covered(self, head: str, metric: str, names: Sequence[NamedSet], view: str = "") -> list[NamedSet]:
        """Return those of the sets that a mean over them covers: with a value for every seed."""
        values = {tested: self.by_seed(head, tested, metric, view).values for tested in names}
        return [tested for tested in names if len(values[tested]) and not np.isnan(values[tested]).any()]

    def coverage(self, corpus: str) -> str:
        """Say how many of the sets asked for a corpus has: "6 of 8 sets"."""
        asked = self.sets_of(corpus)
        return f"{len(set(asked) & set(self.sets))} of {len(asked)} sets"

    def column_names(self) -> dict[NamedSet, str]:
        """Name the columns: the set's name, with its corpus in front when the study tests several corpora."""
        return {tested: tested.key if len(self.corpora) > 1 else tested.name for tested in self.sets}

    def size(self, tested: NamedSet) -> tuple[int, int]:
        """Return (real, synthetic) image counts of a set; they are the same for every head that scored it."""
        images = self.images[tested.corpus]
        n_fake = int(images.label[images.members[tested.name]].sum())
        return len(images.members[tested.name]) - n_fake, n_fake

    def why_undefined(self, head: str, tested: NamedSet, metric: str) -> str:
        """Return why a metric of a set is undefined for some or all seeds of a head; empty when it is not."""
        measured = self.by_seed(head, tested, metric)
        reasons: dict[str, list[int]] = defaultdict(list)
        for seed, reason in zip(measured.seeds, measured.why, strict=True):
            if reason:
                reasons[reason].append(seed)
        if list(reasons.values()) == [measured.seeds]:
            return next(iter(reasons))
        return "; ".join(f"{reason} (seed {', '.join(map(str, seeds))})" for reason, seeds in reasons.items())


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
    cards = {path: read_card(path) for path in sorted(score_files)}
    called = head_names(cards) if names is None else names
    cards = {path: replace(card, head=called[path]) for path, card in cards.items()}
    _check_once(cards)
    thresholds = _thresholds(cards)
    tested = {path: card for path, card in cards.items() if card.view != HELD_OUT}
    shown: dict[str, str] = {}  # corpus -> the view of its undegraded images: "clean", else the first by name
    for card in tested.values():
        shown[card.corpus] = min(shown.get(card.corpus, card.view), card.view, key=lambda view: (view != CLEAN, view))
    first: dict[tuple[str, str], Scores] = {}
    logits: dict[str, dict[tuple[str, int], NDArray[np.float64]]] = {corpus: {} for corpus in sorted(shown)}
    frames = []
    # another detector's scores may be of some sets only: after those of heads, which are of all
    for path, card in sorted(tested.items(), key=lambda item: "external" in item[1].facts):
        scores = replace(read_scores(path), card=card)
        of_all = first.setdefault((card.corpus, card.view), scores)
        aligned = _aligned(of_all, scores)
        measured = measure_sets(scores, threshold=thresholds.get((card.head, card.seed)), unlabelled=unlabelled)
        if card.view == shown[card.corpus]:
            logits[card.corpus][card.head, card.seed] = aligned
            measured["view"] = ""
        frames.append(measured)
    if all(frame.empty for frame in frames):
        raise DataError("no scored image names a test set; give the scores files of a corpus whose manifest has `sets`")
    frame = pd.concat([frame for frame in frames if not frame.empty])
    present = {NamedSet(*row) for row in frame[["corpus", "set"]].itertuples(index=False)}
    in_order = sorted(present, key=lambda one: (place_in(sets, one.key if one.key in sets else one.name), one))
    asked = (NamedSet(corpus, name) for corpus, _, name in (wanted.partition("/") for wanted in dict.fromkeys(sets)))
    plain = set(frame.loc[frame["view"] == "", "head"])
    return Results(
        heads=tuple(sorted(plain, key=lambda head: (place_in(heads, head), head))),
        views=tuple(sorted(set(frame["view"]) - {""})),
        sets=tuple(in_order),
        cards=tuple(sorted(tested.values(), key=lambda card: (place_in(heads, card.head), _place(card)))),
        frame=_complete(frame, in_order),
        thresholds=thresholds,
        images={corpus: first[corpus, shown[corpus]] for corpus in logits},
        logits=logits,
        missing=tuple(wanted for wanted in asked if wanted.name and wanted.corpus in shown and wanted not in present),
    )


def place_in(order: Sequence[str], name: str | None) -> int:
    """Return the place of a name in an order; names that are not in it come after it."""
    return order.index(name) if name is not None and name in order else len(order)


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


def _complete(frame: pd.DataFrame, sets: Sequence[NamedSet]) -> pd.DataFrame:
    """Add rows for what a seed of a head has not scored, and sort: by head, view, seed, then as the tables do."""
    runs = frame[["head", "view", "seed"]].drop_duplicates().sort_values(["head", "view", "seed"])
    columns, metrics = pd.DataFrame(sets, columns=["corpus", "set"]), pd.DataFrame({"metric": list(METRICS)})
    return (
        runs.merge(columns, how="cross")
        .merge(metrics, how="cross")
        .merge(frame, how="left")
        .fillna({"why": NOT_SCORED})
    )


def _place(card: ScoreCard) -> tuple[str, str, str, int]:
    return card.head, card.corpus, card.view, card.seed


def _check_once(cards: Mapping[Path, ScoreCard]) -> None:
    seen: dict[tuple[str, str, str, int], ScoreCard] = {}
    for path, card in cards.items():
        twin = seen.setdefault(_place(card), card)
        # the held-out scores of a head lie beside those of each corpus; they are the same
        if twin is not card and (card.view != HELD_OUT or card.head_sha256 != twin.head_sha256):
            raise DataError(f"{path}: scores of head {card.head!r}, seed {card.seed} are there twice; delete one file")


def _aligned(whole: Scores, scores: Scores) -> NDArray[np.float64]:
    """Return the logits for the images of ``whole``, NaN where another detector has none.

    Raises:
        DataError: other images, labels or sets than those of ``whole``, so that heads cannot be compared on them.
    """
    rows = np.searchsorted(whole.path, scores.path).clip(max=len(whole) - 1)
    same = np.array_equal(whole.path[rows], scores.path) and np.array_equal(whole.label[rows], scores.label)
    if "external" not in scores.card.facts:
        same = same and len(whole) == len(scores) and whole.members.keys() == scores.members.keys()
    if not same or not all(
        name in whole.members and np.array_equal(rows[own], whole.members[name]) for name, own in scores.members.items()
    ):
        raise DataError(
            f"{whole.source} and {scores.source} score different images of corpus {whole.card.corpus!r} "
            f"({len(whole)} and {len(scores)}), so they cannot be compared; make both again with `ltdpipe evaluate` or "
            "`ltdpipe import-scores`"
        )
    aligned = np.full(len(whole), np.nan)
    aligned[rows] = scores.logit
    return aligned


def _thresholds(cards: Mapping[Path, ScoreCard]) -> dict[tuple[str, int], float]:
    thresholds: dict[tuple[str, int], float] = {}
    for path, card in cards.items():
        if card.view == HELD_OUT and (card.head, card.seed) not in thresholds:
            scores = read_scores(path)
            threshold = calibrated_threshold(scores.label, scores.logit)
            if threshold is not None:
                thresholds[card.head, card.seed] = threshold
    return thresholds
