"""The loop over the images of one shard: what the loaders read goes through the backbone, view by view, in batches."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from storage.errors import ResourceError
from storage.rounding import to_stored
from storage.spec import image_axis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stages.extract.backbone import Backbone
    from stages.extract.plan import Chunk
    from stages.extract.reading import Read
    from stages.reporter import Progress
    from storage.spec import FeatureSpec

_IDENTITY = ("path", "size_bytes", "mtime_ns")
_EVERY_S = 0.5  # between two reports of progress


@dataclass
class Timing:
    """Where the seconds of a run went: reading, decoding and views in the loaders; the rest in the main process."""

    read: float = 0.0
    decode: float = 0.0
    view: float = 0.0
    backbone: float = 0.0
    write: float = 0.0
    waiting: float = 0.0
    wall: float = 0.0

    def add(self, other: Timing) -> None:
        """Add another run's seconds; wall time too."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class ViewShard:
    """One shard of one view in the making.

    Attributes:
        arrays: tap -> float16, with room for every image of the chunk.
        rows: sidecar rows of the images so far.
        paths: of the usable images so far; their number is the next free row.
    """

    arrays: dict[str, NDArray[np.float16]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

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
        shards = {view: ViewShard(self._room(len(chunk.rows))) for view in chunk.shards}
        size = self._backbone.card.size
        buffers = {view: np.empty((self._batch, size, size, 3), np.uint8) for view in shards}
        filled = dict.fromkeys(shards, 0)
        told = _Told(progress)
        for row in chunk.rows:
            started = time.perf_counter()
            read = next(reads)
            waited = time.perf_counter() - started
            self._count(read, waited)
            identity = {name: row[name] for name in _IDENTITY}
            failed = False
            for view, shard in shards.items():
                facts, pixels = _of_view(read, view)
                shard.rows.append(identity | facts | {"row": None if pixels is None else len(shard.paths)})
                failed = failed or pixels is None
                if pixels is not None:
                    buffers[view][filled[view]] = pixels
                    shard.paths.append(row["path"])
                    filled[view] += 1
                if filled[view] == self._batch:
                    self._encode(shard, buffers[view])
                    filled[view] = 0
            told.count(failed=failed, waited=waited)
        for view, shard in shards.items():
            if filled[view]:
                self._encode(shard, buffers[view][: filled[view]])
        self._store_late()
        told.tell()
        return shards

    def _room(self, images: int) -> dict[str, NDArray[np.float16]]:
        return {tap: np.empty(self._spec.tap_shape(tap, images), np.float16) for tap in self._spec.taps}

    def _count(self, read: Read, waited: float) -> None:
        self.timing.read += read.seconds.read
        self.timing.decode += read.seconds.decode
        self.timing.view += read.seconds.view
        self.timing.waiting += waited

    def _encode(self, shard: ViewShard, pixels: NDArray[np.uint8]) -> None:
        """Run a batch; store the one before it meanwhile, since a CUDA device works on by itself."""
        started = time.perf_counter()
        start, stop = len(shard.paths) - len(pixels), len(shard.paths)
        at = start
        while at < stop:
            part = pixels[at - start : at - start + self._most]
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
            self._late = shard, at, taps
            at += len(part)
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
            count = values.shape[image_axis(tap)]
            stored = to_stored(values, shard.paths[start : start + count], tap)
            target = shard.arrays[tap]
            place = target[start : start + count] if image_axis(tap) == 0 else target[:, start : start + count]
            place[...] = stored


class _Told:
    """Reports images done, at most every half second."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done, self._failed, self._waited, self._last = 0, 0, 0.0, time.monotonic()

    def count(self, *, failed: bool, waited: float) -> None:
        self._done += 1
        self._failed += failed
        self._waited += waited
        if time.monotonic() - self._last >= _EVERY_S:
            self.tell()

    def tell(self) -> None:
        if self._done:
            self._progress.advance(self._done, failed=self._failed, waiting=self._waited)
        self._done, self._failed, self._waited, self._last = 0, 0, 0.0, time.monotonic()


def _of_view(read: Read, view: int) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Return the facts and pixels of one view of an image."""
    if view in read.view_errors:
        return read.facts | {"status": "failed", "error": read.view_errors[view]}, None
    return read.facts, None if read.pixels is None else read.pixels[view]
