"""Making the planned shards in one process: loaders read ahead, the backbone follows in batches, a thread writes."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.extract.loaders import open_loaders
from stages.extract.reading import Job, Read, Task, Timing
from storage.errors import ResourceError
from storage.spec import image_axis, to_stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from stages.extract.backbone import Backbone
    from stages.extract.settings import Runtime
    from stages.reporter import Progress
    from storage.spec import FeatureSpec
    from storage.store import ShardFolder

_IDENTITY = ("path", "size_bytes", "mtime_ns")
_SHARDS_IN_WRITING = 2  # more would only fill the memory while a slow disk is behind


@dataclass(frozen=True)
class Chunk:
    """The images of one shard, and the views that lack just these images.

    Attributes:
        rows: of the manifest.
        shards: number of a view -> number of the shard that it becomes there.
    """

    rows: tuple[dict[str, Any], ...]
    shards: dict[int, int]


def plan_chunks(
    pending: Sequence[Sequence[dict[str, Any]]], numbers: Sequence[Iterator[int]], shard_size: int
) -> list[Chunk]:
    """Cut what each view lacks into shards, at places that depend on nothing else.

    Args:
        pending: per view, the rows of the manifest it lacks, in manifest order.
        numbers: per view, its free shard numbers.
        shard_size: images a shard.

    Returns:
        The chunks, in manifest order. Views that lack the same images share a chunk, so those are decoded once.
    """
    chunks: dict[tuple[str, ...], Chunk] = {}
    for view, rows in enumerate(pending):
        for start in range(0, len(rows), shard_size):
            part = tuple(rows[start : start + shard_size])
            chunk = chunks.setdefault(tuple(row["path"] for row in part), Chunk(part, {}))
            chunk.shards[view] = next(numbers[view])
    return sorted(chunks.values(), key=lambda chunk: chunk.rows[0]["path"])


def make_shards(
    backbone: Backbone,
    job: Job,
    folders: Sequence[ShardFolder],
    chunks: Sequence[Chunk],
    *,
    progress: Progress,
    runtime: Runtime,
) -> Timing:
    """Make the shards of ``chunks`` and write them; nothing half-made stays when this is stopped.

    Args:
        backbone: what encodes.
        job: how images are read; its views are numbered as ``folders``.
        folders: per view, where its shards go.
        chunks: what to make.
        progress: told of images done.
        runtime: batch and loaders.

    Returns:
        Where the time went.
    """
    started = time.perf_counter()
    size = runtime.batch or backbone.auto_batch
    maker = ShardMaker(backbone, folders[0].spec, size)
    tasks = (Task(row["path"], tuple(chunk.shards)) for chunk in chunks for row in chunk.rows)
    # a batch is read while one is encoded, but never more than the whole work holds
    ahead = min(2 * size, sum(len(chunk.rows) for chunk in chunks))
    writing: deque[Future[float]] = deque()
    with open_loaders(job, runtime.loaders_on(backbone.device.type), ahead) as read, ThreadPoolExecutor(1) as writer:
        reads = read(tasks)
        for chunk in chunks:
            shards = maker.make(chunk, reads, progress)
            writing.append(writer.submit(_write, folders, chunk, shards))
            while len(writing) > _SHARDS_IN_WRITING or (writing and writing[0].done()):
                maker.timing.write += writing.popleft().result()  # a full disk ends the run here
        maker.timing.write += sum(future.result() for future in writing)
    maker.timing.wall = time.perf_counter() - started
    return maker.timing


def _write(folders: Sequence[ShardFolder], chunk: Chunk, shards: dict[int, ViewShard]) -> float:
    started = time.perf_counter()
    for view, shard in shards.items():
        folders[view].add(chunk.shards[view], shard.finished_arrays(), shard.rows)
    return time.perf_counter() - started


@dataclass
class ViewShard:
    """One shard of one view in the making.

    Attributes:
        arrays: tap -> float16, with room for every image of the chunk.
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

    def add(self, row: dict[str, Any], read: Read, view: int) -> None:
        """Take what was read of the next image of the chunk."""
        facts, pixels = read.facts, None if read.pixels is None else read.pixels[view]
        if view in read.view_errors:
            facts, pixels = facts | {"status": "failed", "error": read.view_errors[view]}, None
        identity = {name: row[name] for name in _IDENTITY}
        self.rows.append(identity | facts | {"row": None if pixels is None else len(self.paths)})
        if pixels is not None:
            self.batch[self.waiting] = pixels
            self.waiting += 1
            self.paths.append(row["path"])

    def finished_arrays(self) -> dict[str, NDArray[np.float16]]:
        """Return the arrays without the room that failed images left."""
        kept = len(self.paths)
        return {tap: array[:kept] if image_axis(tap) == 0 else array[:, :kept] for tap, array in self.arrays.items()}


class ShardMaker:
    """Turns what was read of the images of a chunk into the rows and arrays of its shards, one a view."""

    def __init__(self, backbone: Backbone, spec: FeatureSpec, batch: int) -> None:
        """Make a maker; ``spec`` is that of any view, they differ in the view alone."""
        self.timing = Timing()
        self._backbone, self._spec, self._batch = backbone, spec, batch
        self._most = batch  # images that fit the device
        self._late: tuple[ViewShard, int, dict[str, torch.Tensor]] | None = None

    def make(self, chunk: Chunk, reads: Iterator[Read], progress: Progress) -> dict[int, ViewShard]:
        """Encode the images of ``chunk``.

        Args:
            chunk: its rows, and the views wanted.
            reads: gives what was read of each row, in order; exactly ``len(chunk.rows)`` are taken.
            progress: told of images done.

        Returns:
            Number of a view -> its shard.
        """
        shards = {view: self._empty_shard(len(chunk.rows)) for view in chunk.shards}
        for row in chunk.rows:
            started = time.perf_counter()
            read = next(reads)
            waited = time.perf_counter() - started
            self.timing.add(read.timing)
            self.timing.waiting += waited
            for view, shard in shards.items():
                shard.add(row, read, view)
                if shard.waiting == self._batch:
                    self._encode(shard)
            progress.advance(1, failed=int(read.pixels is None or bool(read.view_errors)), waiting=waited)
        for shard in shards.values():
            self._encode(shard)
        self._store_late()
        return shards

    def _empty_shard(self, images: int) -> ViewShard:
        size = self._backbone.card.size
        arrays = {tap: np.empty(self._spec.tap_shape(tap, images), np.float16) for tap in self._spec.taps}
        return ViewShard(arrays, np.empty((self._batch, size, size, 3), np.uint8))

    def _encode(self, shard: ViewShard) -> None:
        """Run the batch that waits; store the one before it meanwhile, since a CUDA device works on by itself."""
        started = time.perf_counter()
        first = len(shard.paths) - shard.waiting  # the row of the first image of the batch
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
            self._store_late()
            self._late = shard, first + done, taps
            done += len(part)
        shard.waiting = 0
        if self._backbone.device.type == "cpu":
            self._store_late()
        self.timing.backbone += time.perf_counter() - started

    def _store_late(self) -> None:
        if self._late is None:
            return
        shard, start, taps = self._late
        self._late = None
        for tap, tensor in taps.items():
            values = tensor.cpu().numpy()
            rows = slice(start, start + values.shape[image_axis(tap)])
            target = shard.arrays[tap]
            place = target[rows] if image_axis(tap) == 0 else target[:, rows]
            place[...] = to_stored(values, shard.paths[rows], tap)
