"""Knobs of a run that change its speed and no feature: they stay outside the feature key and outside params.yaml."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """How a run uses the machine.

    Attributes:
        shard_size: images a shard.
        batch: images a forward pass; None for a size that suits the device. Changes features by rounding alone.
        loaders: decoding processes, for each worker; None for a number that suits the machine, 0 to decode in the main
            process.
        workers: processes of a local Dask cluster; 1 works in this process, without Dask.
        scheduler: address of a running Dask cluster, instead of ``workers``.
        compiled: compile the backbone's blocks with torch.compile.
        check_content: hash every image, and make again those whose content differs from what was extracted, though size
            and modification time are the same.
    """

    shard_size: int = 1024
    batch: int | None = None
    loaders: int | None = None
    workers: int = 1
    scheduler: str | None = None
    compiled: bool = False
    check_content: bool = False


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def auto_loaders(device: str, *, share: int = 1) -> int:
    """Return how many loader processes suit the machine.

    Args:
        device: "cuda": the GPU waits for pixels, so all cores but one decode. "cpu": the backbone takes far longer than
            decoding and wants the cores itself, so one in four decodes; on a single core a process more only costs.
        share: how many worker processes share the machine.
    """
    mine = max(cores() // share, 1)
    if mine == 1:
        return 0
    return min(mine - 1, 16) if device == "cuda" else max(mine // 4, 1)
