"""Extract one corpus: plan the shards of all views, run the backbone over what is missing, merge the indexes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.extract.augment import Recipe
from stages.extract.backbone import load_backbone
from stages.extract.content import content_hash, is_from_elsewhere, note_roots, without_changed, without_unread
from stages.extract.plan import Chunk, plan_chunks
from stages.extract.reading import Job
from stages.extract.registry import BACKBONES
from stages.extract.runtime import Runtime
from stages.extract.shards import Timing
from stages.extract.summary import ExtractSummary, summarise
from stages.extract.view_names import VIEW, expand_views
from stages.extract.views import feature_spec
from stages.extract.work import Target, make_shards
from storage.archives import is_url
from storage.atomic import write_text
from storage.errors import DataError
from storage.publish import publish
from storage.sources import Sources
from storage.store import Finished, ShardFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from stages.extract.backbone import Backbone
    from stages.extract.settings import ExtractSettings
    from stages.reporter import Progress, Reporter

QUARANTINE = "quarantine.txt"


def run(
    *,
    corpus: str,
    root: Path | str,
    reals: Path | str | None = None,
    manifest: pa.Table,
    settings: ExtractSettings,
    geometry: str,
    views: Sequence[str] = (VIEW,),
    store: Path,
    out: Path,
    reporter: Reporter,
    runtime: Runtime | None = None,
) -> ExtractSummary:
    """Bring ``out/<view>`` up to date with the manifest for every view; finished shards are never made again.

    Args:
        corpus: its name.
        root: folder that the manifest's paths are relative to (see :mod:`storage.sources`).
        reals: folder of the real images that several sets share, the second root of a manifest's paths.
        manifest: rows as ``ltdpipe scan`` makes them.
        settings: backbone, taps and precision; they, the geometry and the view decide the feature key.
        geometry: a name in ``stages.extract.geometry.GEOMETRIES``.
        views: as ``corpora.<name>.views`` has them; all of one run come from one decode.
        store: where shards are kept under their key between runs.
        out: ``features/<corpus>``; its view folders get hard links to the shards, and the index.
        reporter: gets notes, warnings and progress.
        runtime: knobs that change speed and no feature.

    Raises:
        SettingError: a setting does not fit the backbone.
        DataError: an image that has to be read is gone or has another size than the manifest says, no image at all
            can be read, features are broken, or a shard took too many workers with it.
    """
    runtime = runtime or Runtime()
    sources = Sources.of(_absolute(root), None if reals is None else _absolute(reals))
    card = BACKBONES[settings.backbone]
    if card.token != "class" and {"cls", "ln2_cls"} & set(settings.taps):  # noqa: S105 - no password
        reporter.note(f"{card.name} has no class token: cls holds the mean of its patch tokens")
    recipe = Recipe(geometry, card.size, settings.augmentation_seed)
    job = Job(sources, expand_views(views), recipe, settings.apply_exif)
    worker = _Cluster(runtime) if runtime.workers > 1 or runtime.scheduler else _Here(runtime)
    with ExitStack() as stack:
        backbone = worker.start(settings, reporter, stack)
        specs = [feature_spec(backbone, settings, job, view) for view in job.views]
        folders = [ShardFolder((store / spec.key / corpus).absolute(), spec) for spec in specs]
        for folder in sorted(folders, key=lambda folder: folder.directory):  # one order for all runs: no deadlock
            stack.enter_context(folder.lock(reporter.note))
        finished = [folder.clean(reporter.warn) for folder in folders]
        finished = [
            without_unread(folder, each, manifest, sources, reporter)
            for folder, each in zip(folders, finished, strict=True)
        ]
        finished = [
            without_changed(folder, each, manifest, sources, reporter)
            if runtime.check_content or is_from_elsewhere(folder, sources)
            else each
            for folder, each in zip(folders, finished, strict=True)
        ]
        for folder in folders:
            note_roots(folder, sources)
        located = [locate(manifest, each, sources) for each in finished]
        pending = [_lacking(manifest, places) for places in located]
        check_on_disk({row["path"]: row for rows in pending for row in rows}.values(), sources, corpus)
        numbers = [folder.free_numbers(each) for folder, each in zip(folders, finished, strict=True)]
        chunks = plan_chunks(pending, numbers, runtime.shard_size)
        timing = Timing()
        if chunks:
            targets = tuple(Target(folder.directory, folder.spec) for folder in folders)
            total = sum(len(chunk.rows) for chunk in chunks)
            with reporter.progress(f"extract {corpus}", total, "images") as progress:
                timing, deadly = worker.make(job, targets, chunks, progress)
            if deadly:
                raise _quarantined(deadly, folders, corpus)
            finished = [folder.clean(reporter.warn) for folder in folders]
            located = [locate(manifest, each, sources) for each in finished]
        indexes = [
            folder.write_index(manifest, each, places, corpus)
            for folder, each, places in zip(folders, finished, located, strict=True)
        ]
        summary = summarise(
            {view.directory: index for view, index in zip(job.views, indexes, strict=True)},
            pending={view.directory: len(rows) for view, rows in zip(job.views, pending, strict=True)},
            size=card.size,
            timing=timing,
        )
        if not summary.usable:
            reasons = "; ".join(summary.failed)
            raise DataError(f"corpus {corpus!r}: none of {len(manifest)} images below {root} can be read ({reasons})")
        for view, folder, index in zip(job.views, folders, indexes, strict=True):
            publish(folder.directory, out / view.directory, index.shards, reporter.note)
    return summary


class _Here:
    """Makes shards in this process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def start(self, settings: ExtractSettings, reporter: Reporter, _stack: ExitStack) -> Backbone:
        self._backbone = load_backbone(
            settings.backbone,
            weights=settings.weights,
            precision=settings.precision,
            note=reporter.note,
            compiled=self._runtime.compiled,
        )
        return self._backbone

    def make(
        self, job: Job, targets: tuple[Target, ...], chunks: list[Chunk], progress: Progress
    ) -> tuple[Timing, list[Chunk]]:
        knobs = self._runtime
        return (
            make_shards(self._backbone, job, targets, chunks, progress, batch=knobs.batch, loaders=knobs.loaders),
            [],
        )


class _Cluster:
    """Makes shards on a Dask cluster, a local one or any other."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def start(self, settings: ExtractSettings, reporter: Reporter, stack: ExitStack) -> Backbone:
        from stages.extract import cluster  # noqa: PLC0415 - Dask is imported only where it is used

        self._cluster = cluster
        self._client = stack.enter_context(cluster.open_cluster(self._runtime))
        weights = settings.weights
        if weights != "default" and not weights.startswith("random:"):
            weights = str(Path(weights).absolute())
        self._model = cluster.Model(settings.backbone, weights, settings.precision, self._runtime.compiled)
        self._backbone = cluster.describe_on_worker(self._client, self._model)
        workers = len(self._client.scheduler_info(n_workers=-1)["workers"])
        reporter.note(f"{workers} workers, {self._backbone.device.type}, {self._backbone.precision}")
        return self._backbone

    def make(
        self, job: Job, targets: tuple[Target, ...], chunks: list[Chunk], progress: Progress
    ) -> tuple[Timing, list[Chunk]]:
        work = self._cluster.ClusterWork(
            model=self._model,
            weights_hash=self._backbone.weights,
            job=job,
            targets=targets,
            batch=self._runtime.batch,
            loaders=self._runtime.loaders,
            share=1 if self._runtime.scheduler else self._runtime.workers,
        )
        return self._cluster.make_shards_on(self._client, work, chunks, progress)


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
            sha256 = content_hash(sources, identity[0]) if identity in twins else None
            if sha256 is not None:
                located[row] = next((twin for twin, known in twins[identity] if known == sha256), None)
    return located


def check_on_disk(rows: Iterable[dict[str, Any]], sources: Sources, corpus: str) -> None:
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


def _lacking(manifest: pa.Table, located: Sequence[int | None]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = manifest.filter(np.array([place is None for place in located], dtype=bool)).to_pylist()
    return rows


def _absolute(root: Path | str) -> Path | str:
    """Make a local folder absolute, since workers run elsewhere; leave a URL."""
    return root if isinstance(root, str) and is_url(root) else Path(root).absolute()


def _quarantined(deadly: list[Chunk], folders: Sequence[ShardFolder], corpus: str) -> DataError:
    """Write down the files of the shards that killed their workers, and return the error that names the list."""
    paths = [row["path"] for chunk in deadly for row in chunk.rows]
    lists = folders[min(deadly[0].shards)].directory / QUARANTINE
    write_text(lists, "\n".join(paths) + "\n")
    return DataError(
        f"corpus {corpus!r}: {len(deadly)} shard(s) of {len(paths)} images killed every worker that took them, all "
        f"others are done; their files are listed in {lists}. Give workers more memory or a smaller --batch, or move a "
        "broken file away and scan again; the same command then makes only what is missing"
    )
