"""How long stages took on this machine: written down outside what DVC compares, and shown beside the report."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from storage.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.params import Params
    from stages.report.speed import Measured


def record(kind: str, name: str, *, seconds: float, images: int | None = None, parameters: int | None = None) -> None:
    """Write down a run that has ended well.

    Args:
        kind: of stage.
        name: which of its kind.
        seconds: wall time.
        images: how many it went through, each view counted.
        parameters: of the head that was trained.
    """
    measured = {"seconds": seconds, "images": images, "machine": machine(), "parameters": parameters}
    write_text(_file(kind, name), json.dumps(measured) + "\n")


def recorded(params: Params) -> Iterator[Measured]:
    """Yield what this machine last recorded of each of the study's runs, in the order of the graph."""
    runs = [("extraction", corpus, corpus) for corpus in params.corpora]
    heads = [
        (f"{trained_on}/{head}/{seed}", params.label(head, trained_on))
        for trained_on in params.train_on
        for head in params.heads
        for seed in params.seeds
    ]
    runs += [("training", head, label) for head, label in heads]
    runs += [("scoring", f"{corpus}/{head}", label) for head, label in heads for corpus in params.evaluate.corpora]
    runs += [
        ("sweep", f"{trained_on}/{kind}", f"{kind} ({trained_on})")
        for kind, swept in params.sweeps
        for trained_on in swept
    ]
    for kind, name, label in runs:
        if (file := _file(kind, name)).exists():  # else it ran elsewhere, or not yet
            from stages.report.speed import Measured  # a report's libraries, which the stages that record do without

            yield Measured(kind, label, **json.loads(file.read_text(encoding="utf-8")))


def machine() -> str:
    """Name this machine as far as speed depends on it."""
    import torch

    from stages.extract.settings import cores

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cores()} cores of {models[0] if models else platform.machine()}, {device}"


def _file(kind: str, name: str) -> Path:
    """Where a record lies; an experiment's copy of the project writes to the project."""
    return Path(os.environ.get("DVC_ROOT", "."), ".ltdpipe", "speed", kind, f"{name}.json")
