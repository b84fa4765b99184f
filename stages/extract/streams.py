"""The CPU's cores on a forward pass: each takes a few images through the whole backbone by itself.

torch would split every small matrix product over the cores and let them meet after each; cores that other processes
use then hold up all others. Streams meet once a batch. And since a stream always has one thread and the same few
images, features do not depend on the number of cores, to the byte. The rest of a shard that is no more than one
stream's images is the exception: all cores share it, and its float32 values may differ by rounding.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

STREAM_IMAGES = 4  # fewer leave the cores waiting for weights, more leave cores without work
CPU_BATCH, CUDA_BATCH = 32, 256  # on a CPU, the end of a batch is where cores wait for each other


def in_streams(run: Callable[[Tensor], dict[str, Tensor]], images: Tensor, axes: dict[str, int]) -> dict[str, Tensor]:
    """Run a function of a batch in parts, and put the parts of its answer together.

    Args:
        run: (n, ...) images -> name -> tensor; called from several threads at a time.
        images: (N, ...), split along the first axis.
        axes: name -> the axis of its tensor that counts images.
    """
    if len(images) <= STREAM_IMAGES:  # nothing to share out: let torch use all cores for these
        return run(images)
    parts = list(_streams().map(run, torch.split(images, STREAM_IMAGES)))
    return {name: torch.cat([part[name] for part in parts], dim=axis) for name, axis in axes.items()}


def auto_batch(device: torch.device) -> int:
    """Return a batch size that is fast on a device; on CUDA it is halved when it does not fit."""
    return CUDA_BATCH if device.type == "cuda" else max(CPU_BATCH, STREAM_IMAGES * torch.get_num_threads())


@cache
def _streams() -> ThreadPoolExecutor:
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    list(pool.map(lambda _number: None, range(threads)))
    torch.set_num_threads(threads)  # a thread's setting is its own, but also what threads made later start with
    return pool
