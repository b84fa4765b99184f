"""The loop over the images of one shard: decoding threads ahead, the backbone behind them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.extract.decode import decode
from stages.extract.views import pixels_of
from storage.shard import to_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stages.extract.backbone import Backbone
    from stages.reporter import Progress
    from storage.sources import Sources

DECODE_THREADS = 2
_IDENTITY = ("path", "size_bytes", "mtime_ns")


@dataclass(frozen=True)
class ShardMaker:
    """Turns rows of the manifest into the rows and arrays of a shard."""

    backbone: Backbone
    taps: tuple[str, ...]
    geometry: str
    sources: Sources
    batch: int

    def make(
        self, chunk: Sequence[dict[str, Any]], progress: Progress
    ) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float16]]]:
        """Read and encode the images of ``chunk``.

        Returns:
            The sidecar rows of all images, and tap -> (L, N, D) or (N, E) of the readable ones.
        """
        rows: list[dict[str, Any]] = []
        usable: list[str] = []
        parts: dict[str, list[NDArray[np.float32]]] = {tap: [] for tap in self.taps}
        threads = ThreadPoolExecutor(DECODE_THREADS)
        try:
            waiting = [threads.submit(self._read, row) for row in chunk]
            for start in range(0, len(waiting), self.batch):
                pixels = []
                for future in waiting[start : start + self.batch]:
                    row, image = future.result()
                    row["row"] = None if image is None else len(usable)
                    rows.append(row)
                    if image is not None:
                        pixels.append(image)
                        usable.append(row["path"])
                if pixels:
                    taps = self.backbone.taps(np.stack(pixels))
                    for tap, tensors in parts.items():
                        tensors.append(taps[tap].numpy())
                done = len(rows) - start
                progress.advance(done, failed=done - len(pixels))
        finally:
            threads.shutdown(cancel_futures=True)
        arrays = {tap: to_stored(np.concatenate(part, axis=-2), usable, tap) for tap, part in parts.items() if part}
        return rows, arrays

    def _read(self, row: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
        decoded = decode(self.sources, row["path"])
        pixels = None if decoded.image is None else pixels_of(decoded.image, self.geometry)
        return {name: row[name] for name in _IDENTITY} | decoded.facts, pixels
