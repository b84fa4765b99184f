"""What a sweep compares. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stages.heads.settings import HeadSettings, LinearSettings, LtdSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Variant(NamedTuple):
    """One head of a sweep, and where it lies among the others: column of the table -> value."""

    head: HeadSettings
    coordinates: Mapping[str, int]


def window_sweep(base: LtdSettings, blocks: int, sizes: Sequence[int] = range(3, 10)) -> list[Variant]:
    """Return every fixed window of ``sizes`` adjacent blocks among the base's candidates, else the whole backbone.

    Sizes longer than the range of blocks are left out; all other settings are those of ``base``.
    """
    first, last = base.candidates or (0, blocks - 1)
    values = base.model_dump() | {"candidates": None, "anneal": None, "selection_lr": None}
    windows = [(n, start) for n in sizes for start in range(first, last - n + 2)]
    return [
        Variant(
            LtdSettings.model_validate(values | {"window": n, "selection": f"fixed:{start}"}), {"n": n, "start": start}
        )
        for n, start in windows
    ]


def layer_sweep(base: LinearSettings, blocks: int) -> list[Variant]:
    """Return a linear probe, otherwise as ``base``, on the CLS token of each of L ``blocks``."""
    return [Variant(base.model_copy(update={"block": block}), {"block": block}) for block in range(blocks)]
