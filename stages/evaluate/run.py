"""Score every image of an extracted corpus, in every view, with one trained head."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stages.audit.match import matched_sets
from stages.evaluate.scores import HELD_OUT, MATCHED, ScoreCard, write_scores
from stages.heads.file import TrainedHead, score
from stages.heads.settings import TrainSettings
from stages.train.data import backbone_difference, split_rows
from storage.atomic import all_or_none, sha256_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.manifest import evaluation_rows
from storage.views import VIEW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.audit.match import Match

# Views that exist for training only: nobody is tested on them.
_TRAINING_VIEWS = ("train-", "val")
_CROPS = "tencrop"


def run(*, features: Path, head: Path, out: Path) -> int:
    """Write the scores of ``head`` on one view; nothing is drawn at random, rows are scored independently.

    Args:
        features: directory of one extracted corpus view.
        head: a head file.
        out: the scores file to write.

    Returns:
        The number of images scored.

    Raises:
        DataError: a file is missing or damaged, the head was trained on features made with other settings (the
            message names them), or images have no label.
    """
    table = FeatureTable.open(features)
    scores = _scores(TrainedHead.load(head), [table], view=features.name)
    write_scores(out, **scores)
    return len(scores["logits"])


def run_views(
    *, features: Path, head: Path, out: Path, trained_on: Path | None = None, match: Sequence[Match] = ()
) -> dict[str, int]:
    """Write the scores of ``head`` on every view of a corpus, one file per view, and its held-out scores: all or none.

    Where a corpus has several splits, the images of the one that test sets are made of are scored, and no others.

    Args:
        features: directory of an extracted corpus, one folder per view; views made for training are left out. The
            views of ten crops become one: the mean of their logits.
        head: a head file.
        out: folder for ``<view>.parquet``; files of views that are no longer there are removed.
        trained_on: directory of the extracted corpus that the head was trained on. The images held out of its
            training are scored into ``held-out.parquet``, for a threshold of the training domain: in their clean
            view, as test images are seen, or in that of validation where there is no clean one. None: no such file.
        match: for each, ``matched-<match>.parquet`` holds the clean view's images whose files are alike in both
            classes (``stages.audit.match``), so that a number without the file bias stands beside the raw one.

    Returns:
        View -> number of images scored.

    Raises:
        DataError: as :func:`run`, or there is no view to score.
    """
    views: dict[str, list[FeatureTable]] = {}
    for directory in sorted(features.glob("*/")):
        name = directory.name
        if not name.startswith(_TRAINING_VIEWS):
            views.setdefault(_CROPS if name.startswith(_CROPS) else name, []).append(FeatureTable.open(directory))
    if not views:
        raise DataError(f"{features} holds no view to evaluate; extract the corpus first")
    trained = TrainedHead.load(head)
    scores = {name: _scores(trained, tables, view=name) for name, tables in views.items()}
    for wanted in match if VIEW in views else ():
        name = f"{MATCHED}{wanted}"
        index = views[VIEW][0].index
        tested = evaluation_rows(index)
        sets = {of: tested[rows] for of, rows in matched_sets(index.take(tested), wanted).items()}
        scores[name] = _scores(trained, views[VIEW], view=name, sets=sets)
    if trained_on is not None and "train" in trained.metadata:
        settings = TrainSettings.model_validate(trained.metadata["train"])
        clean = trained_on / VIEW
        table = FeatureTable.open(clean if clean.is_dir() else trained_on / settings.validation_view)
        rows = split_rows(table, settings).validation
        scores[HELD_OUT] = _scores(trained, [table], view=HELD_OUT, rows=rows)
    with all_or_none() as partial:
        for name, content in scores.items():
            write_scores(partial(out / f"{name}.parquet"), **content)
    for left in out.glob("*.parquet"):
        if left.stem not in scores:
            left.unlink()
    return {name: len(content["logits"]) for name, content in scores.items()}


def _scores(
    head: TrainedHead,
    tables: Sequence[FeatureTable],
    *,
    view: str,
    rows: NDArray[np.int64] | None = None,
    sets: Mapping[str, NDArray[np.int64]] | None = None,
) -> dict[str, Any]:
    """Return what :func:`write_scores` writes of the mean logit over ``tables``, which show the same images.

    Args:
        head: the head.
        tables: made with the backbone and arithmetic of training; geometry, augmentation and stored blocks may
            differ: training crops at random and evaluation the centre, robustness tests degrade on purpose.
        view: what the tables are called together.
        rows: of these images only; None: of those that test sets are made of.
        sets: test set -> rows; only these images are scored, as members of these sets alone.
    """
    first = tables[0]
    for table in tables:
        difference = backbone_difference(head.spec, table.spec)
        if difference:
            raise DataError(
                f"head {head.source} cannot score {table.directory}, which was made with other settings "
                f"({difference}); extract the corpus with the head's settings, or train on these features"
            )
        if not table.index["path"].equals(first.index["path"]):
            raise DataError(f"{table.directory} and {first.directory} hold different images; extract both again")
    sets_of: dict[int, list[str]] = defaultdict(list)
    for name, members in (sets or {}).items():
        for row in members.tolist():
            sets_of[row].append(name)
    if sets is not None:
        rows = np.array(sorted(sets_of), dtype=np.int64)
    elif rows is None:
        rows = evaluation_rows(first.index)
    images = first.index.take(rows)
    if sets is not None:
        place = images.column_names.index("sets")
        listed = pa.array([sets_of[row] for row in rows.tolist()], pa.list_(pa.large_string()))
        images = images.set_column(place, "sets", listed)
    if images["label"].null_count:
        raise DataError(f"{first.directory} holds images without a label, which cannot be evaluated")
    facts = {name: value for name, value in head.metadata.get("facts", {}).items() if name.startswith("window")}
    if facts.get("window_start") is not None:
        facts["window"] = head.metadata["settings"]["window"]
    card = ScoreCard(
        head=head.metadata["head"],
        seed=head.metadata["seed"],
        corpus=first.corpus,
        view=view,
        feature_key=first.key,
        head_sha256=sha256_of(head.source),
        failed=len(first.failed),
        facts={**facts, "trained_on": head.metadata.get("corpus"), **_use_of_tested(head, first, rows)},
    )
    logits = np.mean([score(head.module, table, rows) for table in tables], axis=0)
    return {"card": card, "images": images, "logits": logits}


def _use_of_tested(head: TrainedHead, table: FeatureTable, rows: NDArray[np.int64]) -> dict[str, str]:
    """Return what the scored images did to the head where it has seen some of them; a report warns of it."""
    if table.corpus != head.metadata.get("corpus") or "train" not in head.metadata:
        return {}
    split = split_rows(table, TrainSettings.model_validate(head.metadata["train"]))
    uses = (("trained", split.training), ("chose the epoch of", split.validation))
    return next(({"tested_images": use} for use, seen in uses if np.isin(rows, seen).any()), {})
