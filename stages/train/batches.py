"""Batches of cached features in any order: from memory where they fit, else from disk, the same either way."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.heads.head import HeadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from storage.features import FeatureTable

_LOAD_ROWS = 2048
# From disk, runs of neighbouring images come in a random order, and are mixed within windows of many runs.
_RUN, _WINDOW = 128, 4096
# So many windows are read at once, in the order of the disk; two such portions are held.
_MOST_WINDOWS, _PORTIONS = 4, 2


class FeatureBatches:
    """N images in V views, of which heads read adjacent blocks.

    What it yields in a given order depends neither on the budget nor on the device. A view that fits the budget is read
    once and stays; where not all views fit, the last place is shared by the rest, read again when their turn comes;
    where not even one fits, batches come from disk, read ahead by one thread, best in the order of :meth:`order`.

    Args:
        tables: the V views, of the same images in the same rows.
        rows: (N,) row numbers of the tables.
        stored: the features to hold, all that the heads read of one tap; blocks ascending.
        device: where batches go, and where resident features lie.
        budget: bytes that resident features, or the portions of streaming, may take.
    """

    def __init__(
        self,
        tables: Sequence[FeatureTable],
        rows: NDArray[np.int64],
        stored: HeadInput,
        *,
        device: torch.device,
        budget: int,
    ) -> None:
        self.stored, self.device = stored, device
        self._tables, self._rows = tables, rows
        labels = tables[0].index["label"].to_numpy()[rows].astype(np.float32)
        self.labels = torch.from_numpy(labels).to(device)
        spec = tables[0].spec
        self._image_shape = (len(stored.blocks), spec.width) if stored.blocks else spec.tap_shape(stored.tap, 0)[1:]
        self._row_bytes = math.prod(self._image_shape) * np.dtype(np.float16).itemsize
        self._places = min(len(tables), budget // max(1, len(rows) * self._row_bytes))
        self._portion = budget // _PORTIONS // self._row_bytes
        self._held: dict[int, tuple[int, torch.Tensor]] = {}  # place -> view and its features

    def __len__(self) -> int:
        """Return N."""
        return len(self._rows)

    @property
    def resident_bytes(self) -> int:
        """Bytes that the resident views take, or will take; 0 when batches come from disk."""
        return self._places * len(self) * self._row_bytes

    @property
    def order_rule(self) -> str | None:
        """What :meth:`order` is, in words; None where it is a whole permutation."""
        return None if self._places else f"runs of {_RUN} neighbours, mixed within windows of {_WINDOW}"

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return the order in which an epoch trains on the images: (N,) row numbers, a function of seed and epoch.

        From memory it is a permutation of all. From disk that would be a read of its own for each image and block:
        there, runs of neighbours come in a random order, those of each class spread evenly over the epoch, and images
        change places within windows of many runs.
        """
        random = torch.Generator().manual_seed(seed * 100_003 + epoch)
        if self._places:
            return torch.randperm(len(self), generator=random)
        runs = torch.split(torch.arange(len(self)), _RUN)
        synthetic = torch.tensor([bool(part.mean() > 0.5) for part in torch.split(self.labels.cpu(), _RUN)])
        place = torch.empty(len(runs))
        for members in (torch.nonzero(synthetic).flatten(), torch.nonzero(~synthetic).flatten()):
            count = len(members)
            place[members] = (torch.randperm(count, generator=random) + torch.rand(count, generator=random)) / count
        images = torch.cat([runs[number] for number in place.argsort(stable=True).tolist()])
        return torch.cat([part[torch.randperm(len(part), generator=random)] for part in torch.split(images, _WINDOW)])

    def batches(
        self, view: int, order: torch.Tensor, size: int, reads: Sequence[HeadInput]
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Yield what each head reads of ``size`` images at a time (the last batch may be short), and their labels.

        Args:
            view: which view, 0-based; counted modulo V.
            order: row numbers among the N images, on the CPU.
            size: images a batch.
            reads: what each head reads of that which is stored; the blocks of one head are adjacent.

        Yields:
            For each of ``reads`` the features, float32 and contiguous (equal ones are one tensor); labels float32.
        """
        first = {read: self.stored.blocks.index(read.blocks[0]) if read.blocks else 0 for read in reads}
        ends = {read: begin + len(read.blocks) for read, begin in first.items()}
        begin, end = min(first.values()), max(ends.values())
        for features, labels in self._from_memory_or_disk(view % len(self._tables), order, size, begin, end):
            parts = {
                read: features if not read.blocks else features[:, first[read] - begin : ends[read] - begin]
                for read in first
            }
            exact = {
                read: part.to(torch.float32, memory_format=torch.contiguous_format) for read, part in parts.items()
            }
            del features, parts
            yield [exact[read] for read in reads], labels

    def _from_memory_or_disk(
        self, view: int, order: torch.Tensor, size: int, begin: int, end: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the stored layers ``begin:end`` in float16, and labels."""
        layers = slice(begin, end) if self.stored.blocks else slice(None)
        if self._places:
            resident = self._resident(view)[:, layers]
            for rows in torch.split(order.to(self.device), size):
                yield resident[rows], self.labels[rows]
            return
        at_once = max(size, min(self._portion, _MOST_WINDOWS * _WINDOW))
        if at_once > _WINDOW:  # what is read at once ends where a window does
            at_once -= at_once % _WINDOW
        portions = torch.split(order, max(1, at_once // size) * size)
        for portion, features in zip(portions, self._read_in_turn(view, portions), strict=True):
            rank = torch.empty_like(portion)  # of each image among the ascending rows
            rank[portion.argsort()] = torch.arange(len(portion))
            for rows, at in zip(torch.split(portion, size), torch.split(rank, size), strict=True):
                yield features[:, layers][at].to(self.device), self.labels[rows.to(self.device)]

    def _resident(self, view: int) -> torch.Tensor:
        """The features (N, ...) of a view in memory, read now if another one has its place."""
        place = min(view, self._places - 1)
        holder, features = self._held.get(place, (None, None))
        if features is None:
            features = torch.empty((len(self), *self._image_shape), dtype=torch.float16, device=self.device)
        if holder != view:
            for start in range(0, len(self), _LOAD_ROWS):
                rows = self._rows[start : start + _LOAD_ROWS]
                features[start : start + len(rows)] = torch.from_numpy(self._read(view, rows))
            self._held[place] = view, features
        return features

    def _read_in_turn(self, view: int, portions: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield the features of each portion, rows ascending; the next is read meanwhile."""
        rows = [self._rows[np.sort(portion.numpy())] for portion in portions]
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._read, view, rows[0])
            for each in rows[1:]:
                ready, coming = coming, ahead.submit(self._read, view, each)
                yield torch.from_numpy(ready.result())
                del ready
            yield torch.from_numpy(coming.result())

    def _read(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        return self._tables[view].read(self.stored.tap, blocks=self.stored.blocks or None, rows=rows)


def union_of(reads: Sequence[HeadInput]) -> HeadInput:
    """Return what has to be stored so that all ``reads``, of one tap, are served; blocks ascending."""
    return HeadInput(reads[0].tap, tuple(sorted({block for read in reads for block in read.blocks})))
