"""What a sweep compares. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.heads.settings import HeadSettings, LinearSettings, LtdSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Coordinate = str | int | float | bool


@dataclass(frozen=True)
class Variant:
    """One head of a sweep, and where it lies among the others: column of the table -> value."""

    head: HeadSettings
    coordinates: Mapping[str, Coordinate]

    def __str__(self) -> str:
        """As progress shows it: ``head=ltd n=5 start=11``."""
        return " ".join(f"{name}={value}" for name, value in self.coordinates.items())


def window_sweep(base: LtdSettings, blocks: int, sizes: Sequence[int] = range(3, 10)) -> list[Variant]:
    """Return every fixed window of ``sizes`` adjacent blocks among the base's candidates, else the whole backbone.

    Args:
        base: all other settings of the head.
        blocks: L.
        sizes: n; those longer than the range of blocks are left out.
    """
    first, last = base.candidates or (0, blocks - 1)
    values = base.model_dump() | {"candidates": None, "anneal": None, "selection_lr": None}
    return [
        Variant(
            LtdSettings.model_validate(values | {"window": n, "selection": f"fixed:{start}"}), {"n": n, "start": start}
        )
        for n in sizes
        for start in range(first, last - n + 2)
    ]


def layer_sweep(base: LinearSettings, blocks: int) -> list[Variant]:
    """Return a linear probe, otherwise as ``base``, on the CLS token of each of L ``blocks``."""
    return [Variant(base.model_copy(update={"block": block}), {"block": block}) for block in range(blocks)]
