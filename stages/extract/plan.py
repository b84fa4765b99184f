"""Which shards are to be made: per view what is missing, cut at fixed places, views with equal shards made together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
    """Cut what each view lacks into shards.

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
