"""Score every image of an extracted corpus, in every view, with trained heads."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.audit.match import matched_sets
from stages.evaluate.scores import HELD_OUT, MATCHED, ScoreCard, read_scores, write_scores
from stages.heads.file import TrainedHead, score, training_of
from stages.heads.machine import best_device, default_budget, in_portions
from stages.heads.settings import TrainSettings
from stages.recipe import HEAD_CODE, recipe
from stages.train.data import backbone_difference, split_rows
from storage.atomic import all_or_none, link, remove, sha256_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.headfile import read_metadata
from storage.index import INDEX_NAME, fingerprint, read_index
from storage.manifest import evaluation_rows
from storage.views import VIEW, tile_corners

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.audit.match import Match
    from stages.train.data import Split

# The code that decides the bytes of a scores file: the `deps:` of the stage.
CODE = (*(f"stages/{name}.py" for name in ("evaluate/run", "evaluate/scores", "train/data", "audit/match")), *HEAD_CODE)
# Views that exist for training only: nobody is tested on them.
_TRAINING_VIEWS = ("train-", "val", "align-")
# Views of one picture in several parts -> what becomes of the parts' logits, under which name.
_MEAN, _MAXIMUM = "mean", "max"
_TILES = "tiles-"
_PARTS = re.compile(r"(tencrop|tiles-\d+)-\d+")


@dataclass(frozen=True)
class HeadToScore:
    """A head file, where its scores go, and what it was trained on.

    Attributes:
        file: the head.
        out: folder for ``<view>.parquet``; files of views that are no longer there are removed.
        trained_on: directory of the extracted corpus that the head was trained on. The images held out of its training
            are scored into ``held-out.parquet``, for a threshold of the training domain: in their clean view, as test
            images are seen, or in that of validation where there is no clean one. None: no such file.
    """

    file: Path
    out: Path
    trained_on: Path | None = None


class ScoreSummary(NamedTuple):
    """How many views of a head there are, and how many images of all of them were scored now, and before."""

    views: int
    scored: int
    kept: int


def run(*, features: Path, head: Path, out: Path) -> int:
    """Write the scores of a head on one view; nothing is drawn at random, rows are scored independently.

    Returns:
        The number of images scored.

    Raises:
        DataError: a file is missing or damaged, the head was trained on features made with other settings (the
            message names them), or images have no label.
    """
    view = _View(features.name, [features])
    (scores,) = view.score([TrainedHead.load(head)])
    write_scores(out, **scores)
    return len(scores["logits"])


def run_views(
    *, features: Path, heads: Sequence[HeadToScore], finished: Path, match: Sequence[Match] = ()
) -> list[ScoreSummary]:
    """Write the scores of heads on every view of a corpus, one file a view; features are read once for all heads.

    Where a corpus has several splits, the images of the one that test sets are made of are scored, and no others.

    Args:
        features: directory of an extracted corpus, one folder per view; views made for training are left out. The
            views of ten crops become one, the mean of their logits; those of tiles two, with mean and maximum.
        heads: what is scored, and where the scores go.
        finished: folder of finished scores, each under its recipe: what is there is not scored again but linked to its
            place, and what is scored is put there.
        match: for each, ``matched-<match>.parquet`` holds the clean view's images whose files are alike in both
            classes (``stages.audit.match``), so that a number without the file bias stands beside the raw one.

    Returns:
        In the order of ``heads``.

    Raises:
        DataError: as :func:`run`, or there is no view to score.
    """
    views: dict[str, list[Path]] = defaultdict(list)
    for directory in sorted(features.glob("*/"), key=lambda path: (len(path.name), path.name)):
        if not directory.name.startswith(_TRAINING_VIEWS):
            parts = _PARTS.fullmatch(directory.name)
            views[directory.name if parts is None else parts[1]].append(directory)
    if not views:
        raise DataError(f"{features} holds no view to evaluate; extract the corpus first")
    shown = []
    for name in sorted(views):
        kinds = (_MEAN, _MAXIMUM) if name.startswith(_TILES) else (_MEAN,)
        shown += [_View(f"{name}-{kind}" if len(kinds) > 1 else name, views[name], parts=kind) for kind in kinds]
    shown += [_View(f"{MATCHED}{each}", views[VIEW], match=each) for each in match if VIEW in views]
    held_out: dict[Any, _View] = {}
    files: list[dict[_View, Path]] = []
    for head in heads:
        wanted = list(shown)
        if (chosen := _held_out(head)) is not None:
            wanted.append(held_out.setdefault(chosen, _View(HELD_OUT, [chosen[0]], held_out=chosen[1])))
        sha256 = sha256_of(head.file)
        files.append({view: finished / f"{recipe([sha256, view.content], CODE)}.parquet" for view in wanted})
    missing = [{view: file for view, file in of_head.items() if not _is_sound(file)} for of_head in files]
    numbers = [number for number, of_head in enumerate(missing) if of_head]
    room = default_budget(best_device()) // 4
    for portion in in_portions(numbers, lambda number: heads[number].file.stat().st_size, room):
        loaded = {number: TrainedHead.load(heads[number].file) for number in portion}
        for view in dict.fromkeys(view for number in portion for view in missing[number]):
            members = [number for number in portion if view in missing[number]]
            for number, scores in zip(members, view.score([loaded[each] for each in members]), strict=True):
                write_scores(missing[number][view], **scores)
    return [_publish(*each) for each in zip(heads, files, missing, strict=True)]


def _held_out(head: HeadToScore) -> tuple[Path, TrainSettings] | None:
    """Return where the images held out of a head's training are seen, and the rule that chose them; None: nowhere."""
    if head.trained_on is None or "train" not in (metadata := read_metadata(head.file)):
        return None
    settings, clean = training_of(metadata), head.trained_on / VIEW
    return clean if clean.is_dir() else head.trained_on / settings.validation_view, _rule(settings)


def _rule(settings: TrainSettings) -> TrainSettings:
    """Return the settings that say which images validate, without all others."""
    return TrainSettings(validation=settings.validation, validation_share=settings.validation_share)


def _is_sound(file: Path) -> bool:
    """Say whether finished scores are there, as they were written."""
    try:
        read_scores(file)
    except DataError:
        return False
    return True


def _publish(head: HeadToScore, files: Mapping[_View, Path], made: Mapping[_View, Path]) -> ScoreSummary:
    """Link the scores of a head to their places, and remove others."""
    with all_or_none() as partial:
        for view, file in files.items():
            link(file, partial(head.out / f"{view.name}.parquet"))
    names = [view.name for view in files]
    remove(*(left for left in head.out.glob("*.parquet") if left.stem not in names))
    images = {view: pq.read_metadata(file).num_rows for view, file in files.items()}
    scored = sum(images[view] for view in made)
    return ScoreSummary(len(files), scored, sum(images.values()) - scored)


class _View:
    """Images that heads score: of one view of a corpus, of ten crops (the mean of their logits), or of a subset.

    Args:
        name: what the scores call it.
        directories: of the same images, made with the backbone and arithmetic of training; geometry, augmentation and
            stored blocks may differ: training crops at random and evaluation the centre.
        match: only images whose files are alike in both classes, as members of the sets where they are.
        parts: what an image's logit is of those in the directories, "mean" or "max".
        held_out: only images that validated a training by this rule; None: only those that test sets are made of.
    """

    def __init__(
        self,
        name: str,
        directories: Sequence[Path],
        *,
        match: Match | None = None,
        parts: str = _MEAN,
        held_out: TrainSettings | None = None,
    ) -> None:
        self.name, self._parts = name, parts
        self._directories, self._match, self._rule = directories, match, held_out
        self._splits: dict[TrainSettings, Split] = {}

    @cached_property
    def content(self) -> list[Any]:
        """All of it that decides scores, plain JSON."""
        indexes = [read_index(directory / INDEX_NAME) for directory in self._directories]
        return [self.name, self._match, [[index.corpus, index.spec.key, fingerprint(index)] for index in indexes]]

    @cached_property
    def _tables(self) -> list[FeatureTable]:
        first, *others = tables = [FeatureTable.open(directory) for directory in self._directories]
        for other in others:
            if not other.index["path"].equals(first.index["path"]):
                raise DataError(f"{other.directory} and {first.directory} hold different images; extract both again")
        return tables

    @cached_property
    def _images(self) -> tuple[NDArray[np.int64], pa.Table]:
        """The rows that are scored, and what is known of their images."""
        index = self._tables[0].index
        rows = evaluation_rows(index) if self._rule is None else self._split(self._rule).validation
        images = index.take(rows)
        if self._match is not None:
            sets_of: dict[int, list[str]] = defaultdict(list)
            for name, members in matched_sets(images, self._match).items():
                for number in members.tolist():
                    sets_of[number].append(name)
            kept = np.array(sorted(sets_of), dtype=np.int64)
            listed = pa.array([sets_of[number] for number in kept.tolist()], pa.list_(pa.large_string()))
            rows, images = rows[kept], images.take(kept)
            images = images.set_column(images.column_names.index("sets"), "sets", listed)
        if images["label"].null_count:
            raise DataError(f"{self._directories[0]} holds images without a label, which cannot be evaluated")
        return rows, images

    def _split(self, rule: TrainSettings) -> Split:
        """How a training that chose its validation images by this rule splits these images."""
        if rule not in self._splits:
            self._splits[rule] = split_rows(self._tables[0], rule)
        return self._splits[rule]

    def score(self, heads: Sequence[TrainedHead]) -> list[dict[str, Any]]:
        """Return for each head what :func:`write_scores` writes.

        Raises:
            DataError: the head was trained on features made with other settings.
        """
        for head, table in itertools.product(heads, self._tables):
            difference = backbone_difference(head.spec, table.spec)
            if difference:
                raise DataError(
                    f"head {head.source} cannot score {table.directory}, which was made with other settings "
                    f"({difference}); extract the corpus with the head's settings, or train on these features"
                )
        rows, images = self._images
        modules = [head.module for head in heads]
        logits = np.array([score(modules, table, rows) for table in self._tables])  # (parts, heads, N)
        if self._parts == _MAXIMUM:
            logits = logits.max(axis=0)
        else:
            shown = self._shown(images)
            logits = (logits * shown[:, None]).sum(axis=0) / shown.sum(axis=0)
        return [
            {"card": self._card(head, rows), "images": images, "logits": own}
            for head, own in zip(heads, logits, strict=True)
        ]

    def _shown(self, images: pa.Table) -> NDArray[np.bool_]:
        """Return (parts, N) whether a part shows what no other does: an image of few tiles repeats them."""
        count = len(self._tables)
        if not self.name.startswith(_TILES):
            return np.ones((count, len(images)), bool)
        side = self._tables[0].spec.view["size"]
        sizes = zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True)
        tiles = np.array([len(tile_corners(width, height, side, count)) for width, height in sizes])
        return np.arange(count)[:, None] < tiles

    def _card(self, head: TrainedHead, rows: NDArray[np.int64]) -> ScoreCard:
        first, metadata = self._tables[0], head.metadata
        facts = {name: value for name, value in metadata.get("facts", {}).items() if name.startswith("window")}
        if facts.get("window_start") is not None:
            facts["window"] = metadata["settings"]["window"]
        facts["trained_on"] = metadata.get("corpus")
        if first.corpus == metadata.get("corpus") and "train" in metadata:
            # what the scored images did to the head where it has seen some of them; a report warns of it
            split = self._split(_rule(training_of(metadata)))
            uses = (("trained", split.training), ("chose the epoch of", split.validation))
            facts |= next(({"tested_images": use} for use, seen in uses if np.isin(rows, seen).any()), {})
        return ScoreCard(
            head=metadata["head"],
            seed=metadata["seed"],
            corpus=first.corpus,
            view=self.name,
            feature_key=first.key,
            head_sha256=sha256_of(head.source),
            failed=len(first.failed),
            facts=facts,
        )
