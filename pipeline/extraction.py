"""Extraction of one corpus, for ``ltdpipe extract`` and ``ltdpipe verify --repair``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.speed import record
from pipeline.workspace import needed
from stages.extract.run import run
from stages.scan.run import run as scan
from storage.index import write_contents
from storage.manifest import read_manifest
from storage.store import project_root, store_root

if TYPE_CHECKING:
    from pipeline.workspace import CorpusRef
    from stages.extract.settings import ExtractSettings, Runtime
    from stages.extract.summary import ExtractSummary
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
