"""Making the planned shards on a Dask cluster: one task a shard, lost workers survived, deadly shards set aside.

Tasks write into the store, which all machines must see under the same path (docs/cluster.md), and return small
records. A task that runs twice writes the same bytes twice.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster, as_completed, get_worker
from distributed.scheduler import KilledWorker

from stages.extract.backbone import Backbone, load_backbone
from stages.extract.runtime import auto_loaders, cores
from stages.extract.shards import Timing
from stages.extract.work import Target, make_shards
from storage.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stages.extract.plan import Chunk
    from stages.extract.reading import Job
    from stages.extract.runtime import Runtime
    from stages.reporter import Progress

_DEATHS = 3  # a shard under which this many workers die is set aside (local cluster; others have their own setting)


@dataclasses.dataclass(frozen=True)
class Model:
    """Which backbone a worker loads: arguments of ``load_backbone``."""

    name: str
    weights: str
    precision: str
    compiled: bool


@dataclasses.dataclass(frozen=True)
class ClusterWork:
    """What all tasks of a run share."""

    model: Model
    weights_hash: str
    job: Job
    targets: tuple[Target, ...]
    batch: int | None
    loaders: int | None
    share: int


@contextmanager
def open_cluster(runtime: Runtime) -> Iterator[Client]:
    """Give a client: of a local cluster with ``runtime.workers`` processes, or of the one at ``runtime.scheduler``.

    Raises:
        ResourceError: nothing answers at that address.
    """
    if runtime.scheduler is not None:
        try:
            client = Client(runtime.scheduler, timeout=20, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ResourceError(
                f"no Dask scheduler answers at {runtime.scheduler} ({error}); start one with `dask scheduler`"
            ) from error
        with client:
            yield client
        return
    threads = str(max(cores() // runtime.workers, 1))  # torch reads it when a worker starts
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS - 1,
        # a worker without a nanny's limits: the backbone's memory is not Dask's to judge
        "distributed.worker.memory.terminate": False,
        "distributed.nanny.pre-spawn-environ": environment,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=runtime.workers, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def describe_on_worker(client: Client, model: Model) -> Backbone:
    """Load the backbone on some worker and return what it is there, without its weights.

    The client's machine may have no GPU, and need not hold the weights.
    """
    backbone: Backbone = client.submit(_describe, model, pure=False).result()
    return backbone


def make_shards_on(
    client: Client, work: ClusterWork, chunks: Sequence[Chunk], progress: Progress
) -> tuple[Timing, list[Chunk]]:
    """Make the shards of ``chunks`` on the cluster.

    No more tasks are out than there are threads, so a worker that dies has one task with it and no bystander.

    Returns:
        Where the time went, summed over workers, and the chunks under which too many workers died.

    Raises:
        LtdpipeError: a worker met a fatal error (a full disk, broken features); the rest is cancelled.
    """
    timing, deadly = Timing(), []
    started = time.perf_counter()
    rest = iter(chunks)
    under_way: dict[Any, tuple[Any, Chunk]] = {}
    results = as_completed(raise_errors=False)

    def submit() -> bool:
        chunk = next(rest, None)
        if chunk is None:
            return False
        # an equal task of an earlier run may be remembered by the scheduler; only its shards on disk count
        future = client.submit(_task, work, chunk, pure=False)
        under_way[future.key] = future, chunk
        results.add(future)
        return True

    while len(under_way) < max(sum(client.nthreads().values()), 1) and submit():
        pass
    try:
        for future in results:
            _, chunk = under_way.pop(future.key)
            try:
                done: Timing = future.result()
                timing.add(done)
                progress.advance(len(chunk.rows), waiting=done.waiting)
            except KilledWorker:
                deadly.append(chunk)
            submit()
    finally:
        client.cancel([future for future, _ in under_way.values()], force=True)
    timing.wall = time.perf_counter() - started
    return timing, deadly


def _describe(model: Model) -> Backbone:
    backbone = _backbone(model)
    return dataclasses.replace(backbone, tower=None)  # type: ignore[arg-type]


def _task(work: ClusterWork, chunk: Chunk) -> Timing:
    backbone = _backbone(work.model)
    if backbone.weights != work.weights_hash:
        raise ResourceError(
            f"this worker has other weights of {work.model.name} than the one that was asked first; give all workers "
            "the same file"
        )
    loaders = auto_loaders(backbone.device.type, share=work.share) if work.loaders is None else work.loaders
    return make_shards(backbone, work.job, work.targets, [chunk], _Silent(), batch=work.batch, loaders=loaders)


@cache
def _backbone(model: Model) -> Backbone:
    """Load a worker's backbone once; several workers on one machine take one GPU each."""
    import torch  # noqa: PLC0415 - not on the client

    name, count = get_worker().name, torch.cuda.device_count()
    device = f"cuda:{name % count}" if count > 1 and isinstance(name, int) else None
    return load_backbone(
        model.name, weights=model.weights, precision=model.precision, device=device, compiled=model.compiled
    )


class _Silent:
    """A worker's progress is told by the client, a shard at a time."""

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Count nothing."""
