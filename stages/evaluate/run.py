"""Score every image of one extracted corpus with one trained head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import TypeAdapter

from stages.evaluate.scores import ScoreCard, write_scores
from stages.train.heads.registry import build_head
from stages.train.heads.settings import HeadSettings
from storage.atomic import sha256_of
from storage.errors import DataError
from storage.features import FeatureTable
from storage.headfile import load_head
from storage.spec import FeatureSpec

if TYPE_CHECKING:
    from pathlib import Path

_BATCH = 1024


def run(*, features: Path, head: Path, out: Path) -> int:
    """Write the scores of ``head`` on ``features``; nothing is drawn at random, rows are scored independently.

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
    weights, metadata = load_head(head)
    if metadata["feature_key"] != table.key:
        difference = FeatureSpec.from_json(metadata["feature_spec"]).difference(table.spec)
        raise DataError(
            f"head {head} cannot score {features}, whose features were made with other settings ({difference}); "
            "extract the corpus with the head's settings, or train on these features"
        )
    if table.index["label"].null_count:
        raise DataError(f"{features} holds images without a label, which cannot be evaluated")
    settings: HeadSettings = TypeAdapter(HeadSettings).validate_python(metadata["settings"])
    module = build_head(settings, blocks=table.spec.blocks, width=table.spec.width, embedding=table.spec.embedding)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"head {head} does not hold the weights its settings ask for: {error}") from error
    module.eval()
    reads = module.reads
    logits = [np.empty(0, np.float32)]
    with torch.inference_mode():
        for _, batch in table.batches(reads.tap, blocks=reads.blocks or None, size=_BATCH):
            logits.append(module(torch.from_numpy(batch).float()).numpy())
    card = ScoreCard(
        head=metadata["head"],
        seed=metadata["seed"],
        corpus=table.corpus,
        view=features.name,
        feature_key=table.key,
        head_sha256=sha256_of(head),
        failed=len(table.failed),
    )
    write_scores(out, card=card, images=table.index, logits=np.concatenate(logits))
    return len(table)
