"""How long stages took on this machine: written down outside what DVC compares, and shown apart from the report.

A record names, by hash, the files that the measured run made; it is shown only while those are the files at hand.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import paths
from storage.atomic import sha256_of, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.params import Params
    from stages.report.speed import Measured


def record(kind: str, name: str, *, of: Sequence[Path], seconds: float, images: int | None = None) -> None:
    """Write down a run that has ended well; not one whose ``of`` is incomplete, as after an import by hand.

    Args:
        kind: of stage.
        name: which of its kind.
        of: small files that change with whatever the run made.
        seconds: wall time.
        images: how many it went through, each view counted.
    """
    if not all(file.exists() for file in of):
        return
    content = {"of": _hash(of), "seconds": seconds, "images": images, "machine": machine()}
    write_text(paths.speed(kind, name), json.dumps(content) + "\n")


def recorded(params: Params) -> Iterator[Measured]:
    """Yield what this machine has recorded of the study's runs, in the order of the graph."""
    for corpus in params.corpora:
        yield from _read("extraction", corpus, corpus, [paths.contents(corpus)])
    heads = [
        (trained_on, head, seed) for trained_on in params.train_on for head in params.heads for seed in params.seeds
    ]
    for trained_on, head, seed in heads:
        made = [paths.head(trained_on, head, seed).with_suffix(".csv")]
        yield from _read("training", f"{trained_on}/{head}/{seed}", params.label(head, trained_on), made)
    for trained_on, head, seed in heads:
        for corpus in params.evaluate.corpora:
            made = [paths.head(trained_on, head, seed).with_suffix(".csv"), paths.contents(corpus)]
            yield from _read("scoring", f"{corpus}/{trained_on}/{head}/{seed}", params.label(head, trained_on), made)
    for kind, swept in params.sweeps:
        for trained_on in swept:
            made = [paths.sweep(trained_on, kind) / "results.csv"]
            yield from _read("sweep", f"{trained_on}/{kind}", f"{kind} ({trained_on})", made)


def machine() -> str:
    """Name this machine as far as speed depends on it."""
    import torch

    from stages.extract.settings import cores

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cores()} cores of {models[0] if models else platform.machine()}, {device}"


def _read(kind: str, name: str, label: str, of: Sequence[Path]) -> Iterator[Measured]:
    file = paths.speed(kind, name)
    if not all(each.exists() for each in (file, *of)):  # it ran elsewhere, or not yet
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    if content["of"] == _hash(of):
        from stages.report.speed import Measured  # a report's libraries, which the stages that record do without

        yield Measured(kind, label, content["seconds"], content["images"], content["machine"])


def _hash(files: Sequence[Path]) -> str:
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
