"""Making the planned shards on a Dask cluster: one task a shard, lost workers survived, deadly shards set aside.

Tasks write into the store, which all machines must see under the same path (docs/cluster.md), and return small
records. A task that runs twice writes the same bytes twice.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster, as_completed, get_worker
from distributed.scheduler import KilledWorker

from stages.extract.backbone import Backbone, load_backbone
from stages.extract.reading import Timing
from stages.extract.settings import ExtractSettings, cores
from stages.extract.shards import make_shards
from stages.extract.views import feature_spec
from storage.atomic import write_text
from storage.errors import DataError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stages.extract.reading import Job
    from stages.extract.settings import Runtime
    from stages.extract.shards import Chunk
    from stages.reporter import Progress
    from storage.store import ShardFolder

QUARANTINE = "quarantine.txt"
_CONNECT_S = 20
_DEATHS = 3  # a shard under which this many workers die is set aside (local cluster; others have their own setting)


@dataclasses.dataclass(frozen=True)
class _Work:
    """What all tasks of a run share."""

    settings: ExtractSettings
    runtime: Runtime
    job: Job
    folders: Sequence[ShardFolder]


@contextmanager
def open_cluster(runtime: Runtime) -> Iterator[Client]:
    """Give a client: of a local cluster with ``runtime.workers`` processes, or of the one at ``runtime.scheduler``.

    Raises:
        ResourceError: nothing answers at that address.
    """
    if runtime.scheduler is not None:
        try:
            client = Client(runtime.scheduler, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"no Dask scheduler answers at {runtime.scheduler} ({error}); start one with `dask scheduler`"
            ) from error
        with client:
            yield client
        return
    threads = str(max(cores() // runtime.workers, 1))  # torch reads it when a worker starts
    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS - 1,
        # a worker without a nanny's limits: the backbone's memory is not Dask's to judge
        "distributed.worker.memory.terminate": False,
        "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=runtime.workers, threads_per_worker=1, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def describe_on_worker(client: Client, settings: ExtractSettings, runtime: Runtime) -> Backbone:
    """Load the backbone on some worker and return what it is there, without its weights.

    The client's machine may have no GPU, and need not hold the weights.
    """
    backbone: Backbone = client.submit(_describe, _travelling(settings), runtime.compiled, pure=False).result()
    return backbone


def make_shards_on(
    client: Client,
    job: Job,
    folders: Sequence[ShardFolder],
    chunks: Sequence[Chunk],
    *,
    settings: ExtractSettings,
    progress: Progress,
    runtime: Runtime,
) -> Timing:
    """Make the shards of ``chunks`` on the cluster, as :func:`stages.extract.shards.make_shards` does here.

    No more tasks are out than there are threads, so a worker that dies has one task with it and no bystander.

    Args:
        client: of the cluster.
        job: as there, and so are ``folders``, ``chunks`` and ``runtime``.
        folders: per view, where its shards go.
        chunks: what to make.
        settings: which backbone the workers load; its features have to be those of the ``folders``.
        progress: told of images done, a shard at a time.
        runtime: batch and loaders of each worker.

    Returns:
        Where the time went, summed over workers.

    Raises:
        LtdpipeError: a worker met a fatal error (a full disk, broken features); the rest is cancelled.
        DataError: too many workers died under a shard; all others are made, and its files are listed.
    """
    absolute = settings.model_copy(update={"weights": _travelling(settings).weights})
    work = _Work(absolute, runtime, job, folders)
    timing, deadly = Timing(), []
    started = time.perf_counter()
    rest = iter(chunks)
    under_way: dict[Any, tuple[Any, Chunk]] = {}
    results = as_completed(loop=client.loop, raise_errors=False)

    def submit(count: int) -> None:
        for chunk in islice(rest, count):
            # an equal task of an earlier run may be remembered by the scheduler; only its shards on disk count
            future = client.submit(_task, work, chunk, pure=False)
            under_way[future.key] = future, chunk
            results.add(future)

    submit(max(sum(client.nthreads().values()), 1))
    try:
        for future in results:
            _, chunk = under_way.pop(future.key)
            try:
                done: Timing = future.result()
                timing.add(done)
                progress.advance(len(chunk.rows), waiting=done.waiting)
            except KilledWorker:
                deadly.append(chunk)
            submit(1)
    finally:
        client.cancel([future for future, _ in under_way.values()], force=True)
    if deadly:
        raise _quarantined(deadly, folders)
    timing.wall = time.perf_counter() - started
    return timing


def _quarantined(deadly: Sequence[Chunk], folders: Sequence[ShardFolder]) -> DataError:
    """Write down the files of the shards that killed their workers, and return the error that names the list."""
    paths = [row["path"] for chunk in deadly for row in chunk.rows]
    folder = folders[min(deadly[0].shards)].directory
    write_text(folder / QUARANTINE, "\n".join(paths) + "\n")
    return DataError(
        f"corpus {folder.name!r}: {len(deadly)} shard(s) of {len(paths)} images killed every worker that took them, "
        f"all others are done; their files are listed in {folder / QUARANTINE}. Give workers more memory or a smaller "
        "--batch, or move a broken file away and scan again; the same command then makes only what is missing"
    )


def _travelling(settings: ExtractSettings) -> ExtractSettings:
    """Return what of the settings tells the backbone, with the absolute path of a weights file: workers run elsewhere.

    The rest is left at its defaults, so that a worker holds one backbone whatever else a later run sets.
    """
    weights = settings.weights
    if weights != "default" and not weights.startswith("random:"):
        weights = str(Path(weights).absolute())
    return ExtractSettings(backbone=settings.backbone, weights=weights, precision=settings.precision)


def _describe(settings: ExtractSettings, compiled: bool) -> Backbone:
    backbone = _backbone(settings, compiled)
    return dataclasses.replace(backbone, tower=None)  # type: ignore[arg-type]


def _task(work: _Work, chunk: Chunk) -> Timing:
    backbone = _backbone(_travelling(work.settings), work.runtime.compiled)
    for view, folder in zip(work.job.views, work.folders, strict=True):
        differing = feature_spec(backbone, work.settings, work.job, view).difference(folder.spec)
        if differing:
            raise ResourceError(
                f"worker {get_worker().name} at {get_worker().address} would make other features than this run's "
                f"({differing}); give all workers the same weights file and installation, and all a GPU or "
                "extract.precision fp32"
            )
    return make_shards(backbone, work.job, work.folders, [chunk], progress=_Silent(), runtime=work.runtime)


@cache
def _backbone(settings: ExtractSettings, compiled: bool) -> Backbone:
    """Load a worker's backbone once; several workers on one machine take one GPU each."""
    import torch  # noqa: PLC0415 - not on the client

    name, count = get_worker().name, torch.cuda.device_count()
    device = f"cuda:{name % count}" if count > 1 and isinstance(name, int) else None
    return load_backbone(
        settings.backbone, weights=settings.weights, precision=settings.precision, device=device, compiled=compiled
    )


class _Silent:
    """A worker's progress is told by the client, a shard at a time."""

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Count nothing."""
