"""Score every image of an extracted corpus, in every view, with one trained head."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import TypeAdapter

from stages.audit.match import matched_sets
from stages.evaluate.scores import HELD_OUT, MATCHED, ScoreCard, write_scores
from stages.extract.view_names import VIEW
from stages.train.data import backbone_difference, split_rows
from stages.train.heads.registry import build_head
from stages.train.heads.settings import HeadSettings
from stages.train.machine import best_device, default_threads, repeatable
from stages.train.settings import TrainSettings
from storage.atomic import sha256_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.headfile import load_head
from storage.index import INDEX_NAME
from storage.spec import FeatureSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.audit.match import Match
    from stages.train.heads.head import Head

_BATCH = 1024
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
    return _LoadedHead.of(head, table.spec).write([table], np.arange(len(table)), view=features.name, out=out)


def run_views(
    *, features: Path, head: Path, out: Path, trained_on: Path | None = None, match: Sequence[Match] = ()
) -> dict[str, int]:
    """Write the scores of ``head`` on every view of a corpus, one file a view, and its held-out scores.

    Args:
        features: directory of an extracted corpus, one folder a view; views made for training are left out. The
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
    for index in sorted(features.glob(f"*/{INDEX_NAME}")):
        name = index.parent.name
        if not name.startswith(_TRAINING_VIEWS):
            views.setdefault(_CROPS if name.startswith(_CROPS) else name, []).append(FeatureTable.open(index.parent))
    if not views:
        raise DataError(f"{features} holds no view to evaluate; extract the corpus first")
    loaded = _LoadedHead.of(head, next(iter(views.values()))[0].spec)
    counts = {}
    for name, tables in views.items():
        counts[name] = loaded.write(tables, np.arange(len(tables[0])), view=name, out=out / f"{name}.parquet")
    for wanted in match if VIEW in views else ():
        name = f"{MATCHED}{wanted}"
        counts[name] = loaded.write_matched(views[VIEW][0], wanted, view=name, out=out / f"{name}.parquet")
    if trained_on is not None and "train" in loaded.metadata:
        settings = TrainSettings.model_validate(loaded.metadata["train"])
        clean = trained_on / VIEW
        table = FeatureTable.open(clean if clean.is_dir() else trained_on / settings.validation_view)
        rows = split_rows(table, settings).validation
        counts[HELD_OUT] = loaded.write([table], rows, view=HELD_OUT, out=out / f"{HELD_OUT}.parquet")
    for left in out.glob("*.parquet"):
        if left.stem not in counts:
            left.unlink()
    return counts


@dataclass(frozen=True)
class _LoadedHead:
    """A head ready to score, with where it came from."""

    source: Path
    module: Head
    spec: FeatureSpec
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, head: Path, spec: FeatureSpec) -> _LoadedHead:
        weights, metadata = load_head(head)
        trained_on = FeatureSpec.from_json(metadata["feature_spec"])
        settings: HeadSettings = TypeAdapter(HeadSettings).validate_python(metadata["settings"])
        _check_same_features(head, trained_on, spec, where="the features")
        module = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(f"head {head} does not hold the weights its settings ask for: {error}") from error
        return cls(head, module.eval().to(best_device()), trained_on, metadata)

    def write(self, tables: Sequence[FeatureTable], rows: NDArray[np.int64], *, view: str, out: Path) -> int:
        """Write the scores of some rows, the mean logit over ``tables`` of the same images; return how many."""
        first = tables[0]
        for table in tables:
            _check_same_features(self.source, self.spec, table.spec, where=str(table.directory))
            if not table.index["path"].equals(first.index["path"]):
                raise DataError(f"{table.directory} and {first.directory} hold different images; extract both again")
        images = first.index.take(rows)
        logits = np.mean([self._logits(table, rows) for table in tables], axis=0)
        self._write(first, images, logits, view, out)
        return len(rows)

    def write_matched(self, table: FeatureTable, match: Match, *, view: str, out: Path) -> int:
        """Write the scores of the images that are in the matched subset of a set, as members of those sets alone."""
        sets: dict[int, list[str]] = defaultdict(list)
        for name, members in matched_sets(table.index, match).items():
            for row in members.tolist():
                sets[row].append(name)
        rows = np.array(sorted(sets), dtype=np.int64)
        images = table.index.take(rows)
        column = images.column_names.index("sets")
        images = images.set_column(column, "sets", pa.array([sets[row] for row in sorted(sets)], pa.list_(pa.string())))
        self._write(table, images, self._logits(table, rows), view, out)
        return len(rows)

    def _write(self, first: FeatureTable, images: pa.Table, logits: NDArray[np.float64], view: str, out: Path) -> None:
        if images["label"].null_count:
            raise DataError(f"{first.directory} holds images without a label, which cannot be evaluated")
        facts = {name: value for name, value in self.metadata.get("facts", {}).items() if name.startswith("window")}
        if facts.get("window_start") is not None:
            facts["window"] = self.metadata["settings"]["window"]
        card = ScoreCard(
            head=self.metadata["head"],
            seed=self.metadata["seed"],
            corpus=first.corpus,
            view=view,
            feature_key=first.key,
            head_sha256=sha256_of(self.source),
            failed=len(first.failed),
            facts={**facts, "trained_on": self.metadata.get("corpus")},
        )
        write_scores(out, card=card, images=images, logits=logits)

    def _logits(self, table: FeatureTable, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        reads, device = self.module.reads, next(self.module.parameters()).device
        logits = [np.empty(0, np.float32)]
        with torch.inference_mode(), repeatable(default_threads(table.spec.width)):
            for chosen in np.split(rows, range(_BATCH, len(rows), _BATCH)):
                batch = table.read(reads.tap, blocks=reads.blocks or None, rows=chosen)
                logits.append(self.module(torch.from_numpy(batch).to(device).float()).cpu().numpy())
        return np.concatenate(logits).astype(np.float64)


def _check_same_features(head: Path, trained_on: FeatureSpec, spec: FeatureSpec, *, where: str) -> None:
    """The backbone and its arithmetic must be those of training; geometry, augmentation and stored blocks may differ.

    Training crops at random and evaluation crops the centre, robustness tests degrade the pixels on purpose.
    """
    difference = backbone_difference(trained_on, spec)
    if difference:
        raise DataError(
            f"head {head} cannot score {where}, which were made with other settings ({difference}); "
            "extract the corpus with the head's settings, or train on these features"
        )
