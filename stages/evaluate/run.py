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
from storage.atomic import all_or_none, sha256_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.headfile import load_head
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
    scores = _LoadedHead.of(head).score([table], view=features.name)
    write_scores(out, **scores)
    return len(scores["logits"])


def run_views(
    *, features: Path, head: Path, out: Path, trained_on: Path | None = None, match: Sequence[Match] = ()
) -> dict[str, int]:
    """Write the scores of ``head`` on every view of a corpus, one file a view, and its held-out scores: all or none.

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
    for directory in sorted(features.glob("*/")):
        name = directory.name
        if not name.startswith(_TRAINING_VIEWS):
            views.setdefault(_CROPS if name.startswith(_CROPS) else name, []).append(FeatureTable.open(directory))
    if not views:
        raise DataError(f"{features} holds no view to evaluate; extract the corpus first")
    loaded = _LoadedHead.of(head)
    scores = {name: loaded.score(tables, view=name) for name, tables in views.items()}
    for wanted in match if VIEW in views else ():
        name = f"{MATCHED}{wanted}"
        sets = matched_sets(views[VIEW][0].index, wanted)
        scores[name] = loaded.score(views[VIEW], view=name, sets=sets)
    if trained_on is not None and "train" in loaded.metadata:
        settings = TrainSettings.model_validate(loaded.metadata["train"])
        clean = trained_on / VIEW
        table = FeatureTable.open(clean if clean.is_dir() else trained_on / settings.validation_view)
        rows = split_rows(table, settings).validation
        scores[HELD_OUT] = loaded.score([table], view=HELD_OUT, rows=rows)
    with all_or_none() as partial:
        for name, content in scores.items():
            write_scores(partial(out / f"{name}.parquet"), **content)
    for left in out.glob("*.parquet"):
        if left.stem not in scores:
            left.unlink()
    return {name: len(content["logits"]) for name, content in scores.items()}


@dataclass(frozen=True)
class _LoadedHead:
    """A head ready to score, with where it came from."""

    source: Path
    module: Head
    spec: FeatureSpec
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, head: Path) -> _LoadedHead:
        weights, metadata = load_head(head)
        spec = FeatureSpec.from_json(metadata["feature_spec"])
        settings: HeadSettings = TypeAdapter(HeadSettings).validate_python(metadata["settings"])
        module = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise DataError(f"head {head} does not hold the weights its settings ask for: {error}") from error
        return cls(head, module.eval().to(best_device()), spec, metadata)

    def score(
        self,
        tables: Sequence[FeatureTable],
        *,
        view: str,
        rows: NDArray[np.int64] | None = None,
        sets: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> dict[str, Any]:
        """Return what :func:`write_scores` writes of the mean logit over ``tables``, which show the same images.

        Args:
            tables: made with the backbone and arithmetic of training; geometry, augmentation and stored blocks may
                differ: training crops at random and evaluation the centre, robustness tests degrade on purpose.
            view: what the tables are called together.
            rows: of these images only; None: of all.
            sets: test set -> rows; only these images are scored, as members of these sets alone.
        """
        first = tables[0]
        for table in tables:
            difference = backbone_difference(self.spec, table.spec)
            if difference:
                raise DataError(
                    f"head {self.source} cannot score {table.directory}, which was made with other settings "
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
            rows = np.arange(len(first))
        images = first.index.take(rows)
        if sets is not None:
            place = images.column_names.index("sets")
            listed = pa.array([sets_of[row] for row in rows.tolist()], pa.list_(pa.string()))
            images = images.set_column(place, "sets", listed)
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
        logits = np.mean([self._logits(table, rows) for table in tables], axis=0)
        return {"card": card, "images": images, "logits": logits}

    def _logits(self, table: FeatureTable, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        reads, device = self.module.reads, next(self.module.parameters()).device
        logits = [np.empty(0, np.float32)]
        with torch.inference_mode(), repeatable(default_threads(table.spec.width)):
            for chosen in np.split(rows, range(_BATCH, len(rows), _BATCH)):
                batch = table.read(reads.tap, blocks=reads.blocks or None, rows=chosen)
                logits.append(self.module(torch.from_numpy(batch).to(device).float()).cpu().numpy())
        return np.concatenate(logits).astype(np.float64)
