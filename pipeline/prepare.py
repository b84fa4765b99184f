"""Before a study runs: are its images there, are they what was published, and does the machine have room and time?"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline import paths
from stages.extract.registry import BACKBONES
from stages.scan.protocols import diffusion_sets, published_sizes
from stages.scan.run import run as scan
from storage.errors import DataError, ResourceError
from storage.views import expand_views

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.params import Corpus, Params
    from stages.reporter import Reporter

_FLOAT16_BYTES = 2


@dataclass(frozen=True)
class CorpusCheck:
    """What the disk holds of one corpus.

    Attributes:
        name: of the corpus.
        manifest: its images; None where nothing was found.
        findings: what a user should know before trusting numbers, one line each.
    """

    name: str
    manifest: pa.Table | None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What the extraction of a study needs.

    Attributes:
        images: corpus -> number of images.
        passes: corpus -> images x views, the number of forward passes.
        bytes: corpus -> bytes of features.
        free_bytes: room where the features go.
    """

    images: dict[str, int]
    passes: dict[str, int]
    bytes: dict[str, int]
    free_bytes: int

    def hours(self, images_per_second: float) -> float:
        """Hours of the backbone at a measured rate."""
        return sum(self.passes.values()) / images_per_second / 3600


def check_corpus(name: str, corpus: Corpus, data: Path, reporter: Reporter, *, is_test: bool) -> CorpusCheck:
    """List a corpus below ``data`` as ``ltdpipe scan`` does, and compare it with what is published of its test sets.

    Args:
        name: of the corpus.
        corpus: where it lies and how.
        data: folder that its roots are relative to.
        reporter: gets the progress.
        is_test: whether heads are evaluated on it; sizes of training images are not published.
    """
    try:
        manifest, summary = scan(
            corpus=name,
            root=paths.images(corpus.root, data),
            layout=corpus.layout,
            reals=None if corpus.reals is None else paths.images(corpus.reals, data),
            classes=corpus.classes,
            selection=corpus.selection,
            reporter=reporter,
        )
    except DataError as error:
        return CorpusCheck(name, None, (str(error),))
    findings = list(summary.warnings)
    if corpus.layout == "ufd":
        findings += _distribution(manifest)
    if is_test:
        findings += _unexpected_sizes(manifest, summary.layout)
    if corpus.set_order:
        missing = [wanted for wanted in corpus.set_order if wanted not in summary.sets]
        # what is missing is told in one line, not in one for each set
        findings = [finding for finding in findings if not finding.endswith("was asked for and has no image")]
        total = len(corpus.set_order)
        lacking = f"; missing: {', '.join(missing)}" if missing else ""
        findings.insert(0, f"{total - len(missing)} of {total} sets{lacking}")
    return CorpusCheck(name, manifest, tuple(findings))


def plan(params: Params, manifests: dict[str, pa.Table], store: Path) -> Plan:
    """Count images, forward passes and bytes of the corpora in ``manifests``."""
    card = BACKBONES[params.extract.backbone]
    blocks = len(params.extract.stored_blocks(card.blocks))
    per_image = 0
    for tap in params.extract.taps:
        cells = (params.extract.grid or 1) ** 2 if tap == "grid" else 1
        per_image += _FLOAT16_BYTES * (card.embedding if tap == "embedding" else blocks * card.width * cells)
    views = {name: len(expand_views(params.corpora[name].views)) for name in manifests}
    images = {name: len(manifest) for name, manifest in manifests.items()}
    passes = {name: images[name] * views[name] for name in manifests}
    existing = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    return Plan(
        images, passes, {name: count * per_image for name, count in passes.items()}, shutil.disk_usage(existing).free
    )


def check_room(plan: Plan) -> None:
    """Refuse a study whose features cannot fit.

    Raises:
        ResourceError: they cannot; the message has the numbers.
    """
    needed = sum(plan.bytes.values())
    if needed > plan.free_bytes:
        raise ResourceError(
            f"the features need {needed / 1e9:.1f} GB and {plan.free_bytes / 1e9:.1f} GB are free; free some room, set "
            "LTDPIPE_STORE to a larger disk, or make the study smaller with --limit"
        )


def limited(manifest: pa.Table, limit: int) -> pa.Table:
    """Return at most ``limit`` images of each class, generator, split and category, and of each group of sets.

    Which ones depends on their paths alone, so a larger limit keeps what a smaller one chose.
    """
    strata: dict[tuple[object, ...], list[tuple[bytes, int]]] = defaultdict(list)
    names = ("path", "label", "generator", "split", "category", "sets")
    for row, (path, *rest, sets) in enumerate(zip(*(manifest[name].to_pylist() for name in names), strict=True)):
        strata[(*rest, tuple(sets))].append((hashlib.sha256(path.encode()).digest(), row))
    chosen = [row for members in strata.values() for _, row in sorted(members)[:limit]]
    return manifest.take(pa.array(np.sort(chosen)))


def _distribution(manifest: pa.Table) -> list[str]:
    """Say which of the two distributions of UFD's diffusion sets this is."""
    rows = zip(*(manifest[name].to_pylist() for name in ("path", "label", "sets")), strict=True)
    reals = [path for path, label, sets in rows if label == 0 and diffusion_sets() & set(sets)]
    shared = sum("/imagenet/" in f"/{path}" or "/laion/" in f"/{path}" for path in reals)
    if shared:
        return [f"UFD in distribution (a), the authors': its diffusion sets share {shared} real images"]
    return ["UFD in distribution (b), a re-pack: its diffusion sets have real images of their own"] if reals else []


def _unexpected_sizes(manifest: pa.Table, layout: str) -> list[str]:
    """One line for each test set whose size is not the published one."""
    counts: Counter[tuple[str, int]] = Counter()
    for sets, label in zip(manifest["sets"].to_pylist(), manifest["label"].to_pylist(), strict=True):
        counts.update((name, label) for name in sets)
    return [
        f"set {name}: {counts[name, 0]} real, {counts[name, 1]} synthetic; published: {size}"
        for name, size in published_sizes(layout).items()
        if (counts[name, 0] or counts[name, 1]) and not size.agrees(counts[name, 0], counts[name, 1])
    ]
