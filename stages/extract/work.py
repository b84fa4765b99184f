"""Making the planned shards in one process: loaders read ahead, the backbone follows, a thread writes."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.extract.loaders import open_loaders
from stages.extract.reading import Job, Task
from stages.extract.runtime import auto_loaders
from stages.extract.shards import ShardMaker, Timing, ViewShard
from stages.extract.streams import auto_batch
from storage.store import ShardFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stages.extract.backbone import Backbone
    from stages.extract.plan import Chunk
    from stages.reporter import Progress
    from storage.spec import FeatureSpec

_SHARDS_IN_WRITING = 2  # more would only fill the memory while a slow disk is behind


@dataclass(frozen=True)
class Target:
    """Where the shards of one view go: small enough to send to another machine.

    Attributes:
        directory: the view's folder in the store.
        spec: what its features are.
    """

    directory: Path
    spec: FeatureSpec


def make_shards(
    backbone: Backbone,
    job: Job,
    targets: Sequence[Target],
    chunks: Sequence[Chunk],
    progress: Progress,
    *,
    batch: int | None,
    loaders: int | None,
) -> Timing:
    """Make the shards of ``chunks`` and write them; nothing half-made stays when this is stopped.

    Args:
        backbone: what encodes.
        job: how images are read; its views are numbered as ``targets``.
        targets: per view, where its shards go.
        chunks: what to make.
        progress: told of images done.
        batch: images a forward pass; None for a size that suits the device.
        loaders: decoding processes; None for a number that suits the machine.

    Returns:
        Where the time went.
    """
    started = time.perf_counter()
    size = batch or auto_batch(backbone.device)
    count = auto_loaders(backbone.device.type) if loaders is None else loaders
    maker = ShardMaker(backbone, targets[0].spec, size)
    tasks = (Task(row["path"], tuple(chunk.shards)) for chunk in chunks for row in chunk.rows)
    # a batch is read while one is encoded, but never more than the whole work holds
    ahead = min(2 * size, sum(len(chunk.rows) for chunk in chunks))
    writing: deque[Future[float]] = deque()
    with open_loaders(job, count, ahead) as loader, ThreadPoolExecutor(1) as writer:
        reads = loader.read(tasks)
        for chunk in chunks:
            shards = maker.make(chunk, reads, progress)
            writing.append(writer.submit(_write, targets, chunk, shards))
            while len(writing) > _SHARDS_IN_WRITING or (writing and writing[0].done()):
                maker.timing.write += writing.popleft().result()  # a full disk ends the run here
        maker.timing.write += sum(future.result() for future in writing)
    maker.timing.wall = time.perf_counter() - started
    return maker.timing


def _write(targets: Sequence[Target], chunk: Chunk, shards: dict[int, ViewShard]) -> float:
    started = time.perf_counter()
    for view, shard in shards.items():
        folder = ShardFolder(targets[view].directory, targets[view].spec)
        folder.add(chunk.shards[view], shard.finished_arrays(), shard.rows)
    return time.perf_counter() - started
