"""Extract one corpus: plan the shards, run the backbone over what is missing, merge the index."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.extract.backbone import load_backbone
from stages.extract.settings import VIEW
from stages.extract.shards import ShardMaker
from stages.extract.views import view_spec
from storage.errors import DataError
from storage.publish import publish
from storage.sources import Sources
from storage.spec import FeatureSpec
from storage.store import Finished, ShardFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from stages.extract.backbone import Backbone
    from stages.extract.settings import ExtractSettings
    from stages.reporter import Reporter

# Raise by hand when an edit changes features without changing a setting; tests/stages/extract guards it with
# golden values.
EXTRACTOR_VERSION = 1


@dataclass(frozen=True)
class ExtractSummary:
    """What a run did: images usable in the index, failed ones by reason, and how many were extracted just now."""

    usable: int
    failed: dict[str, int]
    extracted: int
    key: str


def run(
    *,
    corpus: str,
    root: Path | str,
    reals: Path | str | None = None,
    manifest: pa.Table,
    settings: ExtractSettings,
    geometry: str,
    store: Path,
    out: Path,
    reporter: Reporter,
    shard_size: int = 1024,
    batch: int = 32,
) -> ExtractSummary:
    """Bring ``out/clean`` up to date with the manifest; finished shards are kept and never made again.

    Args:
        corpus: its name.
        root: folder that the manifest's paths are relative to (see :mod:`storage.sources`).
        reals: folder of the real images that several sets share, the second root of a manifest's paths.
        manifest: rows as ``ltdpipe scan`` makes them.
        settings: backbone, taps and precision; they and the geometry decide the feature key.
        geometry: a name in ``stages.extract.views.GEOMETRIES``.
        store: where shards are kept under their key between runs.
        out: ``features/<corpus>``; its view folder gets hard links to the shards, and the index.
        reporter: gets notes, warnings and progress.
        shard_size: images a shard; changes no feature.
        batch: images a forward pass; changes no feature beyond rounding.

    Raises:
        DataError: an image that has to be read is gone or has another size than the manifest says, no image at all
            can be read, or features are broken.
    """
    sources = Sources.of(root, reals)
    backbone = load_backbone(settings.backbone, weights=settings.weights, precision=settings.precision)
    spec = feature_spec(backbone, settings, geometry)
    folder = ShardFolder(store / spec.key / corpus, spec)
    with folder.lock(reporter.note):
        finished = folder.clean(reporter.warn)
        located = locate(manifest, finished, sources)
        pending = manifest.filter(np.array([place is None for place in located], dtype=bool)).to_pylist()
        check_on_disk(pending, sources, corpus)
        numbers = folder.free_numbers(finished)
        maker = ShardMaker(backbone, spec.taps, geometry, sources, batch)
        with reporter.progress(f"extract {corpus}", len(pending), "images") as progress:
            for start in range(0, len(pending), shard_size):
                rows, arrays = maker.make(pending[start : start + shard_size], progress)
                folder.add(next(numbers), arrays, rows)
        if pending:
            finished = folder.clean(reporter.warn)
            located = locate(manifest, finished, sources)
        index = folder.write_index(manifest, finished, located, corpus)
        failed = _failures(index.table)
        if sum(failed.values()) == len(manifest):
            reasons = "; ".join(failed)
            raise DataError(f"corpus {corpus!r}: none of {len(manifest)} images below {root} can be read ({reasons})")
        publish(folder.directory, out / VIEW, index.shards, reporter.note)
    return ExtractSummary(len(manifest) - sum(failed.values()), failed, len(pending), spec.key)


def feature_spec(backbone: Backbone, settings: ExtractSettings, geometry: str) -> FeatureSpec:
    """Return what the features will be: every setting that can change them."""
    return FeatureSpec(
        backbone=backbone.name,
        weights=backbone.weights,
        activation=backbone.activation,
        blocks=backbone.blocks,
        stored_blocks=tuple(range(backbone.blocks)),
        width=backbone.width,
        embedding=backbone.embedding,
        taps=tuple(sorted(settings.taps)),
        view=view_spec(geometry),
        mean=backbone.mean,
        std=backbone.std,
        precision=backbone.precision,
        extractor=EXTRACTOR_VERSION,
    )


def locate(manifest: pa.Table, finished: Finished, sources: Sources) -> list[int | None]:
    """Find each manifest row among the finished ones: same path, size and time, or else the same content.

    A file that was only touched or copied keeps its features: where path and size agree, the hash decides.
    """
    located = finished.locate(manifest)
    if None not in located or not len(finished.rows):
        return located
    twins: dict[tuple[str, int], list[tuple[int, str | None]]] = {}
    columns = (finished.rows[name].to_pylist() for name in ("path", "size_bytes", "sha256"))
    for position, (path, size, sha256) in enumerate(zip(*columns, strict=True)):
        twins.setdefault((path, size), []).append((position, sha256))
    for row, place in enumerate(located):
        if place is None:
            identity = manifest["path"][row].as_py(), manifest["size_bytes"][row].as_py()
            if identity in twins and sources.size(identity[0]) is not None:
                sha256 = hashlib.sha256(sources.read(identity[0])).hexdigest()
                located[row] = next((twin for twin, known in twins[identity] if known == sha256), None)
    return located


def check_on_disk(rows: Sequence[dict[str, Any]], sources: Sources, corpus: str) -> None:
    """Check that the files to be read are there with the size that the manifest says.

    Raises:
        DataError: one is not; the message names the command that refreshes the manifest.
    """
    if sources.is_remote:  # one request a file; a missing one is recorded when it is read
        return
    for row in rows:
        size = sources.size(row["path"])
        if size != row["size_bytes"]:
            state = "is gone" if size is None else f"has {size} bytes instead of {row['size_bytes']}"
            raise DataError(
                f"the manifest of corpus {corpus!r} no longer fits the disk: {sources.where(row['path'])} {state}; "
                f"refresh it with `ltdpipe scan --corpus {corpus}`"
            )


def _failures(index: pa.Table) -> dict[str, int]:
    """Reason -> number of images that could not be read."""
    return dict(Counter(error for error in index["error"].to_pylist() if error is not None))
