"""Looking at many files at once: who asks for sizes, or reads and hashes, waits for the disk more than for a core."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_Found = TypeVar("_Found")


def at_once(look: Callable[..., _Found], *arguments: Iterable[object]) -> Iterator[_Found]:
    """Yield what ``look`` returns for each of the arguments, in their order, as ``map`` does; threads work ahead."""
    with ThreadPoolExecutor() as threads:
        yield from threads.map(look, *arguments)
