"""Train one head with one seed and write its file."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from stages.heads.file import build_head
from stages.heads.machine import best_device, default_budget, default_threads, repeatable
from stages.heads.settings import LtdSettings
from stages.train.checkpoint import Checkpoint
from stages.train.data import TrainingData
from stages.train.loop import Epoch, fit
from stages.train.selection import choose_window, epochs_of
from storage.atomic import all_or_none
from storage.headfile import save_head
from storage.index import INDEX_NAME, fingerprint, read_index
from storage.store import training_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stages.heads.settings import HeadSettings, TrainSettings
    from stages.reporter import Reporter


@dataclass(frozen=True)
class TrainSummary:
    """The best epoch, the number of trained parameters, and facts learned in training (the head's window)."""

    best: Epoch
    parameters: int
    facts: dict[str, Any]


def run(
    *,
    views: Sequence[Path],
    validation_view: Path,
    name: str,
    head: HeadSettings,
    settings: TrainSettings,
    seed: int,
    out: Path,
    reporter: Reporter,
    memory: int | None = None,
    threads: int | None = None,
) -> TrainSummary:
    """Train a head on one extracted corpus. A stopped run resumes when it is started again.

    Args:
        views: directories of the corpus's views; epoch e reads view e mod V.
        validation_view: directory of the view that validates.
        name: name of the head.
        head: its settings.
        settings: how heads of the study are trained; the head's method and the head itself may override it.
        seed: fixes initialisation, dropout, windows and image order; the same seed gives the same file.
        out: the head file, ``.safetensors``; the epochs' measurements go beside it as ``.csv``.
        reporter: gets notes, warnings and progress.
        memory: bytes of features to hold, else streamed; None: 60 % of what is free. Changes no result.
        threads: CPU threads; None: as the width asks for. Another number rounds otherwise, so it is in the file.

    Raises:
        SettingError: the head does not fit the backbone, or the loss is not finite.
        DataError: features are missing, damaged, or lack labels or a class.
    """
    settings = head.training(settings)
    data = TrainingData.open(views, validation_view, settings)
    spec, device = data.views[0].spec, best_device()
    threads = threads or default_threads(spec.width)
    fingerprints = {view.name: fingerprint(read_index(view / INDEX_NAME)) for view in [*views, validation_view]}
    provenance = {
        "head": name,
        "seed": seed,
        "train": settings.model_dump(mode="json"),
        "validation": data.split.rule,
        "corpus": data.views[0].corpus,
        "corpus_index_sha256": fingerprints[views[0].name],
        "view_index_sha256": fingerprints,
        "images": {
            "training": len(data.split.training),
            "validation": len(data.split.validation),
            "unreadable": len(data.views[0].failed),
        },
        "feature_key": data.views[0].key,
        "feature_spec": spec.to_json(),
        "machine": {"device": device.type, "threads": threads if device.type == "cpu" else None},
        "versions": {package: version(package) for package in ("ltdpipe", "torch")},
    }

    def checkpoint_of(head: HeadSettings, *, announce: bool = False) -> Checkpoint:
        """Where the training of this very head is kept: in the store, which outlives a stopped DVC stage."""
        identity = json.dumps({**provenance, "settings": head.model_dump(mode="json")}, sort_keys=True)
        file = training_folder() / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.safetensors"
        return Checkpoint(file, reporter.note, announce=announce)

    selection: dict[str, Any] = {}
    candidates = [head]
    with repeatable(threads):
        budget = default_budget(device) if memory is None else memory
        if isinstance(head, LtdSettings) and head.selection == "halving":
            starts = head.starts_for(spec.blocks)
            candidates = [head.fixed_at(start) for start in starts]
            with reporter.progress(
                f"choose the window of {name}, seed {seed}", epochs_of(len(starts), settings.epochs), "epochs"
            ) as progress:
                head, selection = choose_window(
                    head, data, settings, device, budget, seed=seed, progress=progress, checkpoint_of=checkpoint_of
                )
        torch.manual_seed(seed)
        module = build_head(head, blocks=spec.blocks, width=spec.width, embedding=spec.embedding).to(device)
        before = module.describe()
        training, validation = data.batches(module.reads, device, budget)
        # the chosen window is trained already: its checkpoint has the last epoch
        checkpoint = checkpoint_of(head, announce=not selection)
        with reporter.progress(f"train {name}, seed {seed}", settings.epochs, "epochs") as progress:
            history, best = fit(
                module, training, validation, settings, seed=seed, progress=progress, checkpoint=checkpoint
            )
    facts = what_training_did(before, module.describe())
    if facts.get("window_moved") is False:
        reporter.warn(
            f"head {name!r}, seed {seed}: training left the random initial window unchanged; set the head's selection "
            "to `halving` or `fixed:START` (docs/heads.md)"
        )
    if selection:
        facts["window_selection"] = selection
        if selection["difference"] <= selection["standard_error"]:
            reporter.warn(
                f"head {name!r}, seed {seed}: the windows from block {facts['window_start']} and {selection['second']} "
                f"differ by {selection['difference']:.4f} in held-out loss, within one standard error "
                f"({selection['standard_error']:.4f}): the images do not decide between them"
            )
    parameters = sum(parameter.numel() for parameter in module.parameters())
    metadata = {**provenance, "settings": head.model_dump(mode="json"), "parameters": parameters}
    with all_or_none() as partial:
        save_head(partial(out), module.state_dict(), {**metadata, "best": asdict(best), "facts": facts})
        with partial(out.with_suffix(".csv")).open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Epoch)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(epoch) for epoch in history)
    for candidate in candidates:
        checkpoint_of(candidate).remove()
    return TrainSummary(best, parameters, facts)


def what_training_did(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return a head's description after training; where it learns a window, with pi before and whether it moved."""
    if "pi" not in after:
        return dict(after)
    moved = before["window_start"] != after["window_start"]
    return {**after, "pi_before": before["pi"], "window_moved": moved}
