"""Making the planned shards in one process: loaders read ahead, the backbone follows in batches, a thread writes."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.extract.loaders import open_loaders
from stages.extract.read_image import ReadResult, ReadSpec, Task, Timing
from storage.errors import ResourceError
from storage.index import IDENTITY_FIELDS
from storage.spec import image_axis, to_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from stages.extract.backbone import Backbone
    from stages.extract.settings import Runtime
    from stages.reporter import Progress
    from storage.corpus_folder import CorpusFolder
    from storage.spec import FeatureSpec

_SHARDS_IN_WRITING = 2  # more would only fill the memory while a slow disk is behind


@dataclass(frozen=True)
class ShardPlan:
    """The images of one shard, and the views that lack just these images.

    Attributes:
        images: path, size and time of each, from the manifest.
        shards: number of a view -> number of the shard that it becomes there.
    """

    images: pa.Table
    shards: dict[int, int]


def plan_shards(
    manifest: pa.Table, missing: Sequence[NDArray[np.int64]], numbers: Sequence[Iterator[int]], shard_size: int
) -> list[ShardPlan]:
    """Cut what each view lacks into shards, at places that depend on nothing else.

    Args:
        manifest: of the corpus.
        missing: per view, the numbers of the manifest's rows it lacks, ascending.
        numbers: per view, its free shard numbers.
        shard_size: images a shard.

    Returns:
        The plans, in manifest order. Views that lack the same images share a plan, so those are decoded once.
    """
    identity = manifest.select([field.name for field in IDENTITY_FIELDS])
    plans: dict[bytes, ShardPlan] = {}
    for view, rows in enumerate(missing):
        for start in range(0, len(rows), shard_size):
            part = rows[start : start + shard_size]
            plan = plans.setdefault(part.tobytes(), ShardPlan(identity.take(part), {}))
            plan.shards[view] = next(numbers[view])
    return sorted(plans.values(), key=lambda plan: plan.images["path"][0].as_py())


def make_shards(
    backbone: Backbone,
    read_spec: ReadSpec,
    folders: Sequence[CorpusFolder],
    plans: Sequence[ShardPlan],
    *,
    progress: Progress,
    runtime: Runtime,
) -> Timing:
    """Make the shards of ``plans`` and write them; nothing half-made stays when this is stopped.

    Args:
        backbone: what encodes.
        read_spec: how images are read; its views are numbered as ``folders``.
        folders: per view, where its shards go.
        plans: what to make.
        progress: counts images done.
        runtime: batch and loaders.

    Returns:
        Where the time went.
    """
    started = time.perf_counter()
    timing = Timing()
    size = runtime.batch or backbone.auto_batch
    encoder = Encoder(backbone, folders[0].spec, size, timing)  # the views' specs differ in the view alone
    tasks = (Task(path, tuple(plan.shards)) for plan in plans for path in plan.images["path"].to_pylist())
    # a batch is read while one is encoded, but never more than the whole work holds
    ahead = min(2 * size, sum(len(plan.images) for plan in plans))
    writing: deque[Future[float]] = deque()

    def write(plan: ShardPlan, shards: dict[int, _Shard]) -> float:
        begun = time.perf_counter()
        for view, shard in shards.items():
            folders[view].add(plan.shards[view], shard.stored(), shard.rows)
        return time.perf_counter() - begun

    with (
        open_loaders(read_spec, runtime.loaders_on(backbone.device.type), ahead) as read,
        ThreadPoolExecutor(1) as writer,
    ):
        reads = read(tasks)
        for plan in plans:
            writing.append(writer.submit(write, plan, encoder.encode(plan, reads, progress)))
            while len(writing) > _SHARDS_IN_WRITING or (writing and writing[0].done()):
                timing.write += writing.popleft().result()  # a full disk ends the run here
        timing.write += sum(future.result() for future in writing)
    timing.wall = time.perf_counter() - started
    return timing


@dataclass
class _Shard:
    """One shard of one view in the making.

    Attributes:
        arrays: tap -> float16, with room for every image of the plan.
        batch: (B, S, S, 3) uint8, room for the pixels of the images to be encoded next.
        waiting: how many these are.
        rows: sidecar rows of the images so far.
        paths: of the usable images so far; their number is the next free row.
    """

    arrays: dict[str, NDArray[np.float16]]
    batch: NDArray[np.uint8]
    waiting: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def add(self, image: dict[str, Any], read: ReadResult, view: int) -> None:
        """Take what was read of the next image of the plan."""
        facts, usable = read.metadata, read.pixels is not None
        if view in read.view_errors:
            facts, usable = facts | {"status": "failed", "error": read.view_errors[view]}, False
        self.rows.append(image | facts | {"row": len(self.paths) if usable else None})
        if usable and read.pixels is not None:
            self.batch[self.waiting] = read.pixels[view]
            self.waiting += 1
            self.paths.append(image["path"])

    def store(self, first: int, taps: dict[str, torch.Tensor]) -> None:
        """Put the taps of a batch into rows ``first``, ``first + 1``, ..."""
        for tap, tensor in taps.items():
            values = tensor.cpu().numpy()
            rows = slice(first, first + values.shape[image_axis(tap)])
            target = self.arrays[tap]
            target[(slice(None),) * image_axis(tap) + (rows,)] = to_stored(values, self.paths[rows], tap)

    def stored(self) -> dict[str, NDArray[np.float16]]:
        """Return the arrays without the room that failed images left."""
        kept = len(self.paths)
        return {tap: array[:kept] if image_axis(tap) == 0 else array[:, :kept] for tap, array in self.arrays.items()}


class Encoder:
    """Runs the backbone over images as they are read, in batches of one view of one shard."""

    def __init__(self, backbone: Backbone, spec: FeatureSpec, batch: int, timing: Timing) -> None:
        self._backbone, self._spec, self._batch, self._timing = backbone, spec, batch, timing
        self._most = batch  # images that fit the device

    def encode(self, plan: ShardPlan, reads: Iterator[ReadResult], progress: Progress) -> dict[int, _Shard]:
        """Encode the images of ``plan``, the next ones of ``reads``; return number of a view -> its shard."""
        size, spec = self._backbone.card.size, self._spec
        shards = {
            view: _Shard(
                {tap: np.empty(spec.tap_shape(tap, len(plan.images)), np.float16) for tap in spec.taps},
                np.empty((self._batch, size, size, 3), np.uint8),
            )
            for view in plan.shards
        }
        late: list[Callable[[], None]] = []  # storing the last batch, done while the GPU runs the next
        for shard in self._full_batches(plan, shards, reads, progress):
            started = time.perf_counter()
            for first, taps in self._taps(shard):
                while late:
                    late.pop()()
                late.append(partial(shard.store, first, taps))
            shard.waiting = 0
            while late and self._backbone.device.type == "cpu":
                late.pop()()
            self._timing.backbone += time.perf_counter() - started
        for store in late:
            store()
        return shards

    def _full_batches(
        self, plan: ShardPlan, shards: dict[int, _Shard], reads: Iterator[ReadResult], progress: Progress
    ) -> Iterator[_Shard]:
        """Give each image to the shards of all views; yield a shard whenever its batch is to be encoded."""
        for image in plan.images.to_pylist():
            started = time.perf_counter()
            read = next(reads)
            waited = time.perf_counter() - started
            self._timing.add(read.timing)
            self._timing.waiting += waited
            for view, shard in shards.items():
                shard.add(image, read, view)
                if shard.waiting == self._batch:
                    yield shard
            progress.advance(1, failed=int(read.pixels is None or bool(read.view_errors)), waiting=waited)
        yield from (shard for shard in shards.values() if shard.waiting)

    def _taps(self, shard: _Shard) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        """Run the batch that waits, in parts that fit the device; yield (row of the first image, taps) of each part."""
        done = 0
        while done < shard.waiting:
            part = shard.batch[done : min(done + self._most, shard.waiting)]
            try:
                taps = self._backbone.taps(part, self._spec.taps, self._spec.stored_blocks, self._spec.grid)
            except torch.OutOfMemoryError as error:
                if self._most == 1:
                    raise ResourceError(
                        "one image does not fit the GPU's memory; free some, or use a smaller backbone"
                    ) from error
                self._most = max(self._most // 2, 1)
                continue
            yield len(shard.paths) - shard.waiting + done, taps
            done += len(part)
