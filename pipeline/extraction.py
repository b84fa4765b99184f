"""Extraction of one corpus, for ``ltdpipe extract`` and ``ltdpipe verify --repair``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.speed import record
from pipeline.workspace import needed
from stages.extract.run import run
from stages.scan.run import run as scan
from storage.errors import LtdpipeError
from storage.index import write_contents
from storage.manifest import LIMIT_KEY, changes, read_manifest
from storage.sources import Sources
from storage.store import project_root, store_root

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.workspace import CorpusRef
    from stages.extract.run import ExtractSummary
    from stages.extract.settings import ExtractSettings, Runtime
    from stages.reporter import Reporter


def extract_corpus(
    ref: CorpusRef, settings: ExtractSettings, reporter: Reporter, runtime: Runtime | None = None
) -> ExtractSummary:
    """Extract what a corpus lacks; of one of params.yaml also write its fingerprint and how long it took.

    Its images are those of its manifest; where none is kept, they are listed now.
    """
    out = needed(ref.features, "--out, where the features go")
    if ref.manifest is not None:
        manifest = read_manifest(ref.manifest)
        if change := since_the_scan(ref, manifest):
            reporter.warn(f"{ref.name}: {change}")
    else:
        manifest, scanned = scan(**ref.listing)
        for line in str(scanned).splitlines():
            reporter.note(f"{ref.name}: {line}")
        for warning in scanned.warnings:
            reporter.warn(f"{ref.name}: {warning}")
    summary = run(
        corpus=ref.name,
        root=ref.root,
        reals=ref.reals,
        manifest=manifest,
        settings=settings,
        geometry=ref.settings.geometry,
        views=ref.settings.views,
        store=store_root(),
        owner=None if ref.fingerprint is None else project_root(),
        out=out,
        reporter=reporter,
        runtime=runtime,
    )
    if ref.fingerprint is not None:
        write_contents(out, ref.fingerprint)
        if summary.extracted:
            record("extraction", ref.name, seconds=summary.timing.wall, images=sum(summary.views.values()))
    return summary


def since_the_scan(ref: CorpusRef, manifest: pa.Table) -> str | None:
    """Say how the images of a corpus differ from its manifest; None where they do not, and for URLs."""
    if Sources.of(ref.root, ref.reals).is_remote:
        return None
    try:
        new, gone, touched = changes(manifest, scan(**ref.listing)[0])
    except LtdpipeError as error:
        return f"cannot be scanned again: {error}"
    if LIMIT_KEY in (manifest.schema.metadata or {}):
        new = 0  # it never listed all
    found = {"new": new, "gone": gone, "of another size or time": touched}
    counts = ", ".join(f"{count} {kind}" for kind, count in found.items() if count)
    return f"images since the scan: {counts}; `ltdpipe scan --corpus {ref.name}` lists them again" if counts else None
