"""Scores files -> the results of a study, checked to be comparable."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stages.evaluate.scores import HELD_OUT, ScoreCard, Scores, read_card, read_scores
from stages.measure.bootstrap import REPLICATES, Resampler, draw_counts
from stages.measure.frame import measure_sets
from stages.measure.metrics import METRICS, calibrated_threshold
from stages.report.results import NOT_SCORED, NamedSet, Results
from storage.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CLEAN = "clean"


def load_results(
    score_files: Iterable[Path],
    *,
    heads: Sequence[str] = (),
    sets: Sequence[str] = (),
    names: Mapping[Path, str] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Results:
    """Read scores files, measure them, and bootstrap what has both classes.

    Args:
        score_files: any order; it changes nothing. Those of the view "held-out" give the calibrated thresholds.
        heads: heads in the order of the tables; those not named follow in order of name.
        sets: names of sets, alone or as ``corpus/name``, in the order of the protocol; those not named follow in order
            of name. Of those named with a corpus that was scored, the absent ones are kept as ``missing``.
        names: scores file -> what its head is called here; None: see :func:`head_names`.
        replicates: how many samples of images are drawn.
        seed: of the draws; the same seed gives the same intervals. Each corpus has draws of its own.

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
        measured = measure_sets(scores, threshold=thresholds.get((card.head, card.seed)))
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
    images = {corpus: first[corpus, shown[corpus]] for corpus in logits}
    drawn: dict[tuple[str, NamedSet], dict[str, NDArray[np.float64]]] = {}
    for corpus, of_corpus in images.items():
        drawn |= _replicates(of_corpus, logits[corpus], thresholds, replicates, seed)
    return Results(
        heads=tuple(sorted(plain, key=lambda head: (place_in(heads, head), head))),
        views=tuple(sorted(set(frame["view"]) - {""})),
        sets=tuple(in_order),
        cards=tuple(sorted(tested.values(), key=lambda card: (place_in(heads, card.head), _place(card)))),
        frame=_complete(frame, in_order),
        thresholds=thresholds,
        images=images,
        logits=logits,
        missing=tuple(wanted for wanted in asked if wanted.name and wanted.corpus in shown and wanted not in present),
        replicates=drawn,
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


def _replicates(
    images: Scores,
    logits: Mapping[tuple[str, int], NDArray[np.float64]],
    thresholds: Mapping[tuple[str, int], float],
    replicates: int,
    seed: int,
) -> dict[tuple[str, NamedSet], dict[str, NDArray[np.float64]]]:
    """Bootstrap the sets of a corpus that have both classes: (head, set) -> metric -> (R,), means over seeds."""
    both = [name for name, rows in images.members.items() if len(np.unique(images.label[rows])) == 2]
    resamplers: dict[tuple[str, str], list[Resampler]] = defaultdict(list)
    for ((head, of_seed), of_head), name in product(sorted(logits.items()), both):
        rows = images.members[name]
        if not np.isnan(of_head[rows]).any():
            resampler = Resampler(images.label[rows], of_head[rows], thresholds.get((head, of_seed)))
            resamplers[head, name].append(resampler)
    parts: dict[tuple[str, NamedSet], list[dict[str, NDArray[np.float64]]]] = defaultdict(list)
    draws = (seed, zlib.crc32(images.card.corpus.encode()))
    for counts in draw_counts(strata(images), replicates=replicates, seed=draws) if resamplers else ():
        of_sets = {name: counts[:, images.members[name]] for name in both}
        for (head, name), of_seeds in resamplers.items():
            by_seed = [resampler.metrics(of_sets[name]) for resampler in of_seeds]
            means = {metric: np.mean([one[metric] for one in by_seed], axis=0) for metric in by_seed[0]}
            parts[head, NamedSet(images.card.corpus, name)].append(means)
    return {
        place: {metric: np.concatenate([batch[metric] for batch in batches]) for metric in batches[0]}
        for place, batches in parts.items()
    }


def strata(images: Scores) -> NDArray[np.int64]:
    """Return (N,) a number for each combination of label and test sets."""
    inside = [np.isin(np.arange(len(images)), rows) for rows in images.members.values()]
    numbers: NDArray[np.int64] = np.unique(np.stack([images.label, *inside], axis=1), axis=0, return_inverse=True)[1]
    return numbers
