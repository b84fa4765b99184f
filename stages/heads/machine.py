"""The device that trains, the memory that features may take, and arithmetic that repeats itself."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_MEMORY_SHARE = 0.6
_NARROW = 512


def best_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_budget(device: torch.device) -> int:
    """Return how many bytes of features may be resident: 60 % of the device's memory that is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _MEMORY_SHARE)
    from distributed.system import MEMORY_LIMIT  # noqa: PLC0415 - the limit of the container; slow to import

    left = MEMORY_LIMIT - psutil.Process().memory_info().rss
    return int(max(0, min(psutil.virtual_memory().available, left)) * _MEMORY_SHARE)


def default_threads(width: int) -> int:
    """Return how many CPU threads train a head on tokens of this width: below 512 one, else torch's own number.

    More are no faster on narrow tokens, and many times slower on a busy machine.
    """
    return 1 if width < _NARROW else torch.get_num_threads()


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Make torch give the same bits for the same work, within the block.

    The number of threads decides how a matrix product is cut, and so how its sum is rounded. On a CPU nothing else is
    needed: torch's deterministic mode imports its compiler, and no operation of a head depends on it.
    """
    on_gpu = torch.cuda.is_available()
    threads_before, deterministic_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    if on_gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA's condition for determinism
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        if on_gpu:
            torch.use_deterministic_algorithms(deterministic_before)


def in_portions(items: Sequence[T], cost: Callable[[T], int], room: int) -> Iterator[list[T]]:
    """Yield the items in order, as many at a time as the room has place for, at least one."""
    portion: list[T] = []
    taken = 0
    for item in items:
        if portion and taken + cost(item) > room:
            yield portion
            portion, taken = [], 0
        portion.append(item)
        taken += cost(item)
    if portion:
        yield portion
