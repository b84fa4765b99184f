"""Making the planned shards on a Dask cluster: one task a shard, lost workers survived, deadly shards set aside.

Tasks write into the store, which all machines must see under the same path (docs/cluster.md), and return small
records. A task that runs twice writes the same bytes twice.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster, as_completed, get_worker
from distributed.scheduler import KilledWorker

from stages.extract.backbone import Backbone, BackboneIdentity, feature_spec, load_backbone
from stages.extract.read_image import Timing
from stages.extract.settings import ExtractSettings, cores
from stages.extract.shards import make_shards
from stages.reporter import SilentReporter
from storage.atomic import write_text
from storage.corpus_folder import CorpusFolder
from storage.errors import DataError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stages.extract.read_image import ReadSpec
    from stages.extract.settings import Runtime
    from stages.extract.shards import ShardPlan
    from stages.reporter import Progress

QUARANTINE = "quarantine.txt"
_CONNECT_S = 20
_DEATHS = 3  # a shard under which this many workers die is set aside (local cluster; others have their own setting)


@dataclass(frozen=True)
class _Work:
    """What all tasks of a run share."""

    settings: ExtractSettings
    runtime: Runtime
    read_spec: ReadSpec
    folders: Sequence[CorpusFolder]


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


def describe_on_worker(client: Client, settings: ExtractSettings, runtime: Runtime) -> BackboneIdentity:
    """Load the backbone on some worker and return what it is there.

    The client's machine may have no GPU, and need not hold the weights.
    """
    identity: BackboneIdentity = client.submit(
        _identity, _backbone_settings(settings), runtime.compiled, pure=False
    ).result()
    return identity


def make_shards_on(
    client: Client,
    read_spec: ReadSpec,
    folders: Sequence[CorpusFolder],
    plans: Sequence[ShardPlan],
    *,
    settings: ExtractSettings,
    progress: Progress,
    runtime: Runtime,
) -> Timing:
    """Make the shards of ``plans`` on the cluster, as :func:`stages.extract.shards.make_shards` does here.

    No more tasks are out than there are threads, so a worker that dies has one task with it and no bystander. The
    workers load the backbone of ``settings``, whose features have to be those of the ``folders``.

    Raises:
        LtdpipeError: a worker met a fatal error (a full disk, broken features); the rest is cancelled.
        DataError: too many workers died under a shard; all others are made, and its files are listed.
    """
    started = time.perf_counter()
    absolute = settings.model_copy(update={"weights": _backbone_settings(settings).weights})
    empty = [CorpusFolder(folder.directory, folder.spec) for folder in folders]  # without the rows of finished shards
    work = _Work(absolute, runtime, read_spec, empty)
    timing, deadly = Timing(), []
    rest = iter(plans)
    under_way: dict[Any, tuple[Any, ShardPlan]] = {}
    results = as_completed(loop=client.loop, raise_errors=False)

    def submit(count: int) -> None:
        for plan in islice(rest, count):
            # an equal task of an earlier run may be remembered by the scheduler; only its shards on disk count
            future = client.submit(_task, work, plan, pure=False)
            under_way[future.key] = future, plan
            results.add(future)

    submit(max(sum(client.nthreads().values()), 1))
    try:
        for future in results:
            _, plan = under_way.pop(future.key)
            try:
                done: Timing = future.result()
                timing.add(done)
                progress.advance(len(plan.images), waiting=done.waiting)
            except KilledWorker:
                deadly.append(plan)
            submit(1)
    finally:
        client.cancel([future for future, _ in under_way.values()], force=True)
    if deadly:
        raise _quarantined(deadly, folders)
    timing.wall = time.perf_counter() - started
    return timing


def _quarantined(deadly: Sequence[ShardPlan], folders: Sequence[CorpusFolder]) -> DataError:
    """Write down the files of the shards that killed their workers, and return the error that names the list."""
    paths = [path for plan in deadly for path in plan.images["path"].to_pylist()]
    folder = folders[min(deadly[0].shards)]
    listed = folder.directory / QUARANTINE
    write_text(listed, "\n".join(paths) + "\n")
    return DataError(
        f"corpus {folder.corpus!r}: {len(deadly)} shard(s) of {len(paths)} images killed every worker that took them, "
        f"all others are done; their files are listed in {listed}. Give workers more memory or a smaller "
        "--batch, or move a broken file away and scan again; the same command then makes only what is missing"
    )


def _backbone_settings(settings: ExtractSettings) -> ExtractSettings:
    """Return the settings that select the backbone, with the absolute path of a weights file: workers run elsewhere.

    The rest is left at its defaults, so that a worker holds one backbone whatever else a later run sets.
    """
    weights = settings.weights
    if weights != "default" and not weights.startswith("random:"):
        weights = str(Path(weights).absolute())
    return ExtractSettings(backbone=settings.backbone, weights=weights, precision=settings.precision)


def _identity(settings: ExtractSettings, compiled: bool) -> BackboneIdentity:
    backbone = _backbone(settings, compiled)
    return BackboneIdentity(
        card=backbone.card, weights=backbone.weights, device=backbone.device, precision=backbone.precision
    )


def _task(work: _Work, plan: ShardPlan) -> Timing:
    backbone = _backbone(_backbone_settings(work.settings), work.runtime.compiled)
    for view, folder in zip(work.read_spec.views, work.folders, strict=True):
        differing = feature_spec(backbone, work.settings, work.read_spec, view).difference(folder.spec)
        if differing:
            raise ResourceError(
                f"worker {get_worker().name} at {get_worker().address} would make other features than this run's "
                f"({differing}); give all workers the same weights file and installation, and all a GPU or "
                "extract.precision fp32"
            )
    return make_shards(backbone, work.read_spec, work.folders, [plan], progress=SilentReporter(), runtime=work.runtime)


@cache
def _backbone(settings: ExtractSettings, compiled: bool) -> Backbone:
    """Load a worker's backbone once; several workers on one machine take one GPU each."""
    import torch  # noqa: PLC0415 - not on the client

    name, count = get_worker().name, torch.cuda.device_count()
    device = f"cuda:{name % count}" if count > 1 and isinstance(name, int) else None
    return load_backbone(
        settings.backbone, weights=settings.weights, precision=settings.precision, device=device, compiled=compiled
    )
