"""Making the planned shards on a Dask cluster: one task a shard, as many under way as workers are there.

Tasks write into the store, which all machines must see under the same path (docs/cluster.md), and return small
records. A task that runs twice writes the same bytes twice. A worker keeps its backbone and its loaders between tasks.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import dask
from distributed import Client, LocalCluster, get_worker, wait
from distributed.scheduler import KilledWorker

from stages.extract.backbone import Backbone, BackboneIdentity, feature_spec, load_backbone
from stages.extract.encode import make_shards
from stages.extract.loaders import open_loaders
from stages.extract.read_image import Timing
from stages.extract.settings import ExtractSettings, cores
from stages.reporter import SilentReporter
from storage.atomic import write_text
from storage.corpus_folder import CorpusFolder
from storage.errors import DataError, LtdpipeError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stages.extract.plan import ShardPlan
    from stages.extract.read_image import ReadSpec
    from stages.extract.settings import Runtime
    from stages.reporter import Progress

QUARANTINE = "quarantine.txt"
_CONNECT_S = 20
_TRIES = 3  # a shard that kills or fails so many workers is set aside
_LOOK_S = 2.0  # how often workers that have joined are looked for
_STOP_S = 60.0  # how long workers have to keep what they have done when the run is interrupted


@dataclass(frozen=True)
class _Work:
    """What all tasks of a run share; ``run`` names it."""

    run: str
    settings: ExtractSettings
    runtime: Runtime
    read_spec: ReadSpec
    folders: Sequence[CorpusFolder]


class _Failure(NamedTuple):  # a task that a worker could not do, though another one may
    worker: str
    reason: str


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
        "distributed.scheduler.allowed-failures": _TRIES - 1,
        # a worker without a nanny's limits: the backbone's memory is not Dask's to judge
        "distributed.worker.memory.terminate": False,
        # Ctrl-C goes to the whole group; the client decides, and has them keep what they have done
        "distributed.worker.preload": ["import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"],
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


def describe_on_worker(
    client: Client, settings: ExtractSettings, runtime: Runtime, notify: Callable[[str], None]
) -> BackboneIdentity:
    """Return what the backbone is on a worker: the client may have neither GPU nor weights. Say so when it waits."""
    if not client.nthreads():
        notify(f"the Dask scheduler at {runtime.scheduler} has no worker yet; waiting for one")
        client.wait_for_workers(1)
    described = client.submit(_identity, _backbone_settings(settings), runtime.compiled, pure=False)
    identity: BackboneIdentity = described.result()
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
    notify: Callable[[str], None],
) -> Timing:
    """Make the shards of ``plans`` on the cluster, as :func:`stages.extract.encode.make_shards` does here.

    Each thread of the workers of the moment has one task: who joins gets work at once, who dies has no bystander.

    Raises:
        LtdpipeError: a worker met a fatal error (a full disk, broken features); the rest is cancelled.
        DataError: shards killed or failed three workers; all others are made, and their files are listed.
    """
    started = time.perf_counter()
    absolute = settings.model_copy(update={"weights": _backbone_settings(settings).weights})
    empty = [CorpusFolder(folder.directory, folder.spec) for folder in folders]  # without the rows of finished shards
    work = _Work(uuid4().hex, absolute, runtime, read_spec, empty)
    timing = Timing()
    given_up: list[tuple[ShardPlan, str]] = []
    # plan, and the workers that failed at it; the last one is next
    rest: list[tuple[ShardPlan, list[str]]] = [(plan, []) for plan in reversed(plans)]
    under_way: dict[Any, tuple[ShardPlan, list[str]]] = {}
    waited = False
    try:
        while rest or under_way:
            threads: dict[str, int] = client.nthreads()
            if not threads and not waited:
                notify("all Dask workers are gone; waiting for one")
            waited = not threads
            for _ in range(min(sum(threads.values()) - len(under_way), len(rest))):
                plan, failed = rest.pop()
                others = [address for address in threads if address not in failed]
                # an equal task of an earlier run may be remembered by the scheduler; only its shards on disk count
                elsewhere = {"workers": others, "allow_other_workers": True} if failed and others else {}
                future = client.submit(_task, work, plan, pure=False, **elsewhere)
                under_way[future] = plan, failed
            for future in _finished(client, list(under_way)):
                plan, failed = under_way.pop(future)
                try:
                    done: Timing | _Failure = future.result()
                except KilledWorker:
                    given_up.append((plan, "the worker died"))
                    continue
                if isinstance(done, Timing):
                    timing.add(done)
                    progress.advance(len(plan.images), waiting=done.waiting)
                elif len(failed) + 1 == _TRIES:
                    given_up.append((plan, done.reason))
                else:
                    notify(f"worker {done.worker} failed ({done.reason}); its shard is given to another")
                    rest.append((plan, [*failed, done.worker]))
    except KeyboardInterrupt:
        client.run(_stop, work.run)
        with suppress(TimeoutError), client.as_current():
            wait(list(under_way), timeout=_STOP_S)
        notify("workers have kept what they had done of their shards; the same command goes on behind it")
        raise
    finally:
        client.cancel(list(under_way), force=True)
        with suppress(OSError):  # the scheduler may be gone
            client.run(_stop, work.run)
    if given_up:
        raise _quarantined(given_up, folders)
    timing.wall = time.perf_counter() - started
    return timing


def _finished(client: Client, under_way: list[Any]) -> list[Any]:
    """Wait a moment for tasks to end, and return those that have."""
    if not under_way:
        time.sleep(_LOOK_S)
        return []
    with suppress(TimeoutError), client.as_current():
        return list(wait(under_way, timeout=_LOOK_S, return_when="FIRST_COMPLETED").done)
    return []


def _quarantined(given_up: Sequence[tuple[ShardPlan, str]], folders: Sequence[CorpusFolder]) -> DataError:
    """Write down the files of these shards, and return the error that names the list."""
    paths = [path for plan, _ in given_up for path in plan.images["path"].to_pylist()]
    folder = folders[min(given_up[0][0].shards)]
    listed = folder.directory / QUARANTINE
    write_text(listed, "\n".join(paths) + "\n")
    return DataError(
        f"corpus {folder.corpus!r}: {len(given_up)} shard(s) of {len(paths)} images killed or failed every worker that "
        f"took them ({given_up[0][1]}), all others are done; their files are listed in {listed}. Give workers more "
        "memory or a smaller --batch, or move a broken file away and scan again; the same command then makes only what "
        "is missing"
    )


def _backbone_settings(settings: ExtractSettings) -> ExtractSettings:
    """Return the settings that select the backbone, and no other, with an absolute path: workers run elsewhere."""
    weights = settings.weights
    if weights != "default" and not weights.startswith("random:"):
        weights = str(Path(weights).absolute())
    return ExtractSettings(backbone=settings.backbone, weights=weights, precision=settings.precision)


# On the workers


@dataclass
class _Loaders:
    """A worker's open loaders, kept from task to task of a run."""

    run: str = ""
    opened: ExitStack = field(default_factory=ExitStack)
    read: Any = None
    stopped: set[str] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)  # held by the task at work

    def of(self, work: _Work, backbone: Backbone) -> Any:
        """Return the loaders of a run, opened where they are not yet."""
        if self.run != work.run:
            self.close()
            batch = work.runtime.batch or backbone.auto_batch
            count = work.runtime.loaders_on(backbone.device.type)
            loaders = open_loaders(work.read_spec, count, min(2 * batch, work.runtime.shard_size))
            self.read, self.run = self.opened.enter_context(loaders), work.run
        return self.read

    def close(self) -> None:
        """End the loaders."""
        self.run = ""
        self.opened.close()


_loaders = _Loaders()


def _stop(run: str) -> None:
    """Interrupt the task of a run that is under way on this worker, and end its loaders."""
    _loaders.stopped.add(run)
    if _loaders.lock.acquire(blocking=False):
        _loaders.close()
        _loaders.lock.release()


def _identity(settings: ExtractSettings, compiled: bool) -> BackboneIdentity:
    own = _backbone(settings, compiled)
    return BackboneIdentity(card=own.card, weights=own.weights, device=own.device, precision=own.precision)


def _task(work: _Work, plan: ShardPlan) -> Timing | _Failure:
    worker = get_worker()
    with _loaders.lock:
        try:
            backbone = _backbone(_backbone_settings(work.settings), work.runtime.compiled)
            _check_features(backbone, work)
            return make_shards(
                backbone,
                work.read_spec,
                work.folders,
                [plan],
                progress=SilentReporter(),
                runtime=work.runtime,
                read=_loaders.of(work, backbone),
                stopped=lambda: work.run in _loaders.stopped,
            )
        except (Exception, KeyboardInterrupt) as error:
            _loaders.close()  # they may be in the middle of something
            if isinstance(error, LtdpipeError):
                raise
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            return _Failure(worker.address, reason.splitlines()[0])


def _check_features(backbone: Backbone, work: _Work) -> None:
    for view, folder in zip(work.read_spec.views, work.folders, strict=True):
        differing = feature_spec(backbone, work.settings, work.read_spec.recipe, view).difference(folder.spec)
        if differing:
            raise ResourceError(
                f"worker {get_worker().name} at {get_worker().address} would make other features than this run's "
                f"({differing}); give all workers the same weights file and installation, and all a GPU or "
                "extract.precision fp32"
            )


@cache
def _backbone(settings: ExtractSettings, compiled: bool) -> Backbone:
    """Load a worker's backbone once."""
    return load_backbone(settings.backbone, weights=settings.weights, precision=settings.precision, compiled=compiled)
