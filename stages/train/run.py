"""Train one head with one seed and write its file."""

from __future__ import annotations

import csv
import os
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from stages.train.data import load_examples
from stages.train.heads.registry import build_head
from stages.train.loop import Epoch, fit
from storage.atomic import atomic_path, sha256_of
from storage.features import FeatureTable
from storage.headfile import save_head
from storage.index import INDEX_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.reporter import Reporter
    from stages.train.heads import HeadSettings
    from stages.train.settings import TrainSettings


@dataclass(frozen=True)
class TrainSummary:
    """What came out: the best epoch, the number of trained parameters, and the head's own facts (its window)."""

    best: Epoch
    parameters: int
    facts: dict[str, Any]


def run(
    *,
    features: Path,
    name: str,
    head: HeadSettings,
    settings: TrainSettings,
    seed: int,
    out: Path,
    reporter: Reporter,
) -> TrainSummary:
    """Train a head on one extracted corpus view.

    Args:
        features: directory of the view.
        name: what the head is called in params.yaml.
        head: its settings.
        settings: how it is trained.
        seed: fixes initialisation, dropout, windows and image order; the same seed gives the same file.
        out: the head file, ``.safetensors``; the epochs' measurements go beside it as ``.csv``.
        reporter: gets warnings and progress.

    Raises:
        SettingError: the head does not fit the backbone, or the loss is not finite.
        DataError: features are missing, damaged, or lack labels or a class.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA needs to be deterministic
    torch.use_deterministic_algorithms(True)
    table = FeatureTable.open(features)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    module = build_head(head, blocks=table.spec.blocks, width=table.spec.width, embedding=table.spec.embedding)
    module.to(device)
    training, validation = load_examples(table, module.reads, validation_share=settings.validation_share, device=device)
    with reporter.progress(f"train {name}, seed {seed}", settings.epochs, "epochs") as progress:
        history, best = fit(module, training, validation, settings, seed=seed, progress=progress)
    facts = module.describe()
    if facts.get("window_moved") is False:
        reporter.warn(
            f"head {name!r}, seed {seed}: the chosen window is still that of the initial draw; give pi its own "
            "selection_lr, fix the window, or compare windows"
        )
    parameters = sum(parameter.numel() for parameter in module.parameters())
    metadata = {
        "head": name,
        "settings": head.model_dump(mode="json"),
        "seed": seed,
        "train": settings.model_dump(mode="json"),
        "corpus": table.corpus,
        "corpus_index_sha256": sha256_of(features / INDEX_NAME),
        "images": {"training": len(training), "validation": len(validation), "unreadable": len(table.failed)},
        "feature_key": table.key,
        "feature_spec": table.spec.to_json(),
        "best": asdict(best),
        "parameters": parameters,
        "facts": facts,
        "versions": {package: version(package) for package in ("ltdpipe", "torch")},
    }
    save_head(out, module.state_dict(), metadata)
    _write_history(out.with_suffix(".csv"), history)
    return TrainSummary(best, parameters, facts)


def _write_history(path: Path, history: Sequence[Epoch]) -> None:
    with atomic_path(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in history)
