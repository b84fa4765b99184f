"""Making the planned shards in one process: loaders read ahead, the backbone follows in batches, a thread writes.

Images are read plan after plan without a pause. Each goes into the next batch of every view that wants it; a full
batch is handed to the device, and its features are put into their shard when they come back, while the next one runs.
What a stopped run has done of a shard is kept, and the next run goes on behind it: batches begin at the same images, so
the finished shard is the same file.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.extract.align import QUALITY
from stages.extract.loaders import open_loaders
from stages.extract.read_image import NO_METADATA, ReadResult, ReadSpec, Task, Timing
from storage import unfinished
from storage.errors import DataError, ResourceError
from storage.spec import image_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from stages.extract.backbone import Backbone, Encoded
    from stages.extract.plan import ShardPlan
    from stages.extract.settings import Runtime
    from stages.reporter import Progress
    from storage.corpus_folder import CorpusFolder
    from storage.spec import FeatureSpec
    from storage.unfinished import Unfinished

    Read = Callable[[Iterable[Task]], Iterator[ReadResult]]

_SHARDS_IN_WRITING = 2  # more would only fill the memory while a slow disk is behind
# A forward pass that takes longer is cut: the images of the one under way are what an interruption loses.
_LONGEST_PASS_S = 15.0
_LEAST_PASS = 8  # images; more than the stream that a core of a CPU takes
_KEPT = ReadResult(NO_METADATA, None)  # in place of an image that an earlier run had done


def make_shards(
    backbone: Backbone,
    read_spec: ReadSpec,
    folders: Sequence[CorpusFolder],
    plans: Sequence[ShardPlan],
    *,
    progress: Progress,
    runtime: Runtime,
    notify: Callable[[str], None] = lambda _line: None,
    read: Read | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Timing:
    """Make the shards of ``plans`` and write them.

    Args:
        backbone: what encodes.
        read_spec: how images are read; its views are numbered as ``folders``.
        folders: per view, where its shards go.
        plans: what to make.
        progress: counts images done.
        runtime: batch and loaders.
        notify: gets a line on what an interruption keeps.
        read: loaders that are open; None: open some.
        stopped: asked after each batch; True interrupts as Ctrl-C does.

    Returns:
        Where the time went.

    Raises:
        KeyboardInterrupt: it was interrupted; what was encoded of unfinished shards is kept.
    """
    started = time.perf_counter()
    size = runtime.batch or backbone.auto_batch
    with ExitStack() as stack:
        if read is None:  # a batch is read while one is encoded, but never more than the whole work holds
            ahead = min(2 * size, sum(len(plan.images) for plan in plans))
            read = stack.enter_context(open_loaders(read_spec, runtime.loaders_on(backbone.device.type), ahead))
        encoder = _Encoder(backbone, folders, plans, size, stack.enter_context(ThreadPoolExecutor(1)))
        try:
            encoder.encode(read(encoder.tasks()), progress, stopped)
        except KeyboardInterrupt:
            if kept := encoder.keep_unfinished():
                notify(f"kept {kept} images of an unfinished shard; the same command goes on behind them")
            raise
    encoder.timing.wall = time.perf_counter() - started
    return encoder.timing


@dataclass
class _Shard:
    """One shard of one view in the making.

    Attributes:
        arrays: tap -> float16, with room for every image of the plan.
        rows: sidecar rows of the images so far.
        paths: of the usable images so far; their number is the next free row.
        begun: images that an earlier run had done.
        stored: usable images whose features are in ``arrays``; those behind them wait or are on the device.
    """

    arrays: dict[str, NDArray[np.float16]]
    rows: list[dict[str, Any]]
    paths: list[str] = field(default_factory=list)
    begun: int = 0
    stored: int = 0

    @classmethod
    def begin(cls, spec: FeatureSpec, images: int, kept: Unfinished | None) -> _Shard:
        """Begin a shard of so many images with what an earlier run has kept of it."""
        taps, rows = kept or ({}, [])
        shard = cls({tap: np.empty(spec.tap_shape(tap, images), np.float16) for tap in spec.taps}, rows)
        shard.paths, shard.begun = [row["path"] for row in rows if row["row"] is not None], len(rows)
        shard.put(0, taps)
        return shard

    def add(self, image: dict[str, Any], read: ReadResult, view: int) -> bool:
        """Take what was read of the next image of the plan; return whether it has pixels to encode."""
        facts, usable = read.metadata, read.pixels is not None
        if view in read.view_errors:
            facts, usable = facts | {"status": "failed", "error": read.view_errors[view]}, False
        self.rows.append(image | facts | {"row": len(self.paths) if usable else None})
        if usable:
            self.paths.append(image["path"])
        return usable

    def put(self, first: int, stored: Mapping[str, NDArray[np.float16]]) -> None:
        """Put features into the arrays from row ``first`` on; interrupted half-way, it can be done again."""
        last = first
        for tap, values in stored.items():
            last = first + values.shape[image_axis(tap)]
            _images(self.arrays[tap], tap, slice(first, last))[:] = values
        self.stored = last

    def done(self) -> Unfinished:
        """Return features and rows of the images up to the first whose features are not there."""
        first = next((at for at, row in enumerate(self.rows) if row["row"] == self.stored), len(self.rows))
        return {tap: _images(each, tap, slice(self.stored)) for tap, each in self.arrays.items()}, self.rows[:first]


class _Encoder:
    """Runs the backbone over images as they are read, in batches of one view of one shard."""

    def __init__(
        self,
        backbone: Backbone,
        folders: Sequence[CorpusFolder],
        plans: Sequence[ShardPlan],
        batch: int,
        writer: ThreadPoolExecutor,
    ) -> None:
        self.timing = Timing()
        self._backbone, self._folders, self._plans, self._writer = backbone, folders, plans, writer
        # images a batch, images that fit one forward pass, and images that a slow CPU has done in time
        self._batch, self._most, self._quick = batch, batch, batch
        side = backbone.card.size
        self._pixels = [np.empty((batch, side, side, 3), np.uint8) for _ in folders]
        self._kept = [
            unfinished.read(folder, {plan.shards[view]: plan.images for plan in plans if view in plan.shards})
            for view, folder in enumerate(folders)
        ]
        self._making: dict[int, tuple[int, _Shard]] = {}  # view -> number and shard, of the plan that is read now
        self._pending: deque[Callable[[], None]] = deque()  # storing batches that are on the device, and writing shards
        self._writing: deque[Future[float]] = deque()

    def tasks(self) -> Iterator[Task]:
        """Yield what is to be read, in order."""
        for plan in self._plans:
            begun = {view: len(self._kept[view].get(n, ({}, []))[1]) for view, n in plan.shards.items()}
            for at, image in enumerate(plan.images.to_pylist()):
                if views := tuple(view for view, count in begun.items() if count <= at):
                    yield Task(image["path"], views, image.get(QUALITY))

    def encode(self, reads: Iterator[ReadResult], progress: Progress, stopped: Callable[[], bool]) -> None:
        """Make all shards of what was read of :meth:`tasks`."""
        for plan in self._plans:
            images = plan.images.to_pylist()
            for view, number in plan.shards.items():
                kept = self._kept[view].get(number)
                self._making[view] = number, _Shard.begin(self._folders[view].spec, len(images), kept)
            waiting = dict.fromkeys(plan.shards, 0)
            for at, image in enumerate(images):
                views = [view for view, (_, shard) in self._making.items() if shard.begun <= at]
                started = time.perf_counter()
                read = next(reads) if views else _KEPT
                waited = time.perf_counter() - started
                self.timing.add(read.timing)
                self.timing.waiting += waited
                for view in views:
                    if self._making[view][1].add(image, read, view) and read.pixels is not None:
                        self._pixels[view][waiting[view]] = read.pixels[view]
                        waiting[view] += 1
                    if waiting[view] == self._batch:
                        self._run(view, waiting[view], stopped)
                        waiting[view] = 0
                progress.advance(1, failed=int(bool(read.metadata["error"] or read.view_errors)), waiting=waited)
            for view in plan.shards:
                self._run(view, waiting[view], stopped)
                self._pending.append(partial(self._write, view, *self._making[view]))
                del self._making[view]
            self._catch_up(self._backbone.in_flight)
        self._catch_up(0)
        while self._writing:
            self.timing.write += self._writing.popleft().result()

    def keep_unfinished(self) -> int:
        """Keep what is done of the shards in the making; return how many images that are."""
        self._catch_up(0)
        kept = 0
        for view, (number, shard) in self._making.items():
            taps, rows = shard.done()
            if shard.begun < len(rows):
                unfinished.keep(self._folders[view], number, taps, rows)
            kept = max(kept, len(rows))
        return kept

    def _run(self, view: int, count: int, stopped: Callable[[], bool]) -> None:
        """Hand the ``count`` images that wait over to the device, in passes that fit it."""
        shard, spec, in_flight = self._making[view][1], self._folders[view].spec, self._backbone.in_flight
        done = 0
        while done < count:
            stop = min(done + min(self._most, self._quick), count)
            if self._quick < self._most and count - stop < _LEAST_PASS:
                stop = count  # a few images alone would be computed by all cores, and round otherwise
            started = time.perf_counter()
            try:
                features = self._backbone.submit(self._pixels[view][done:stop], spec)
            except torch.OutOfMemoryError as error:
                if self._most == 1:
                    raise ResourceError(
                        "one image does not fit the GPU's memory; free some, or use a smaller backbone"
                    ) from error
                self._most = max(self._most // 2, 1)
                continue
            self._pending.append(partial(self._store, shard, len(shard.paths) - count + done, features))
            self._catch_up(in_flight)
            seconds = time.perf_counter() - started
            self.timing.backbone += seconds
            if in_flight == 0 and seconds > _LONGEST_PASS_S:
                self._quick = max((stop - done) // 2 // _LEAST_PASS, 1) * _LEAST_PASS
            done = stop
            if stopped():
                raise KeyboardInterrupt

    def _catch_up(self, in_flight: int) -> None:
        """Store batches, and hand shards to the writer, until so few are left."""
        while len(self._pending) > in_flight:
            self._pending[0]()
            self._pending.popleft()  # only now: an interruption before does it again

    def _store(self, shard: _Shard, first: int, features: Callable[[], Encoded]) -> None:
        """Wait for the features of a batch, and put them into their shard from row ``first`` on.

        Raises:
            DataError: a value is not finite, overflows float16 (65,504), or an image's features are all zero.
        """
        stored, largest = features()
        for tap, magnitudes in largest.items():
            with np.errstate(over="ignore"):
                rounded = magnitudes.astype(np.float16)  # the largest of the rounded is the largest, rounded
            for what, broken in (
                ("is not finite", ~np.isfinite(magnitudes)),
                ("overflows float16", ~np.isfinite(rounded)),
                ("is zero everywhere", rounded == 0),
            ):
                if broken.any():
                    path = shard.paths[first + int(np.flatnonzero(broken)[0])]
                    raise DataError(f"tap {tap!r} of {path!r} {what}; backbone, weights or precision are broken")
        shard.put(first, stored)

    def _write(self, view: int, number: int, shard: _Shard) -> None:
        """Give a finished shard to the writer; wait while it is behind."""

        def write() -> float:
            begun = time.perf_counter()
            self._folders[view].add(number, *shard.done())
            return time.perf_counter() - begun

        self._writing.append(self._writer.submit(write))
        most = _SHARDS_IN_WRITING * len(self._folders)
        while self._writing and (len(self._writing) > most or self._writing[0].done()):
            self.timing.write += self._writing.popleft().result()  # a full disk ends the run here


def _images(array: NDArray[np.float16], tap: str, images: slice) -> NDArray[np.float16]:
    """Return a part of a tap along its axis of images."""
    return array[images] if image_axis(tap) == 0 else array[:, images]
