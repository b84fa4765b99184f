"""What a sweep compares. Free of torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from stages.train.heads.settings import HeadSettings, LinearSettings, LtdSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Coordinate = str | int | float | bool

_HEADS: TypeAdapter[HeadSettings] = TypeAdapter(HeadSettings)


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


def product(heads: Mapping[str, HeadSettings], varied: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """Return each head with each combination of varied settings; those of ``train`` are named ``train.lr`` and so on.

    Args:
        heads: name -> settings.
        varied: setting -> its values.

    Raises:
        pydantic.ValidationError: a head does not know a setting or its value.
    """
    variants = []
    for (name, head), values in itertools.product(heads.items(), itertools.product(*varied.values())):
        dumped = head.model_dump()
        for key, value in zip(varied, values, strict=True):
            part, _, rest = key.partition(".")
            if part == "train" and rest:
                dumped["train"] = {**dumped["train"], rest: value}
            else:
                dumped[key] = value
        shown = {
            key: value if isinstance(value, Coordinate) else str(value)
            for key, value in zip(varied, values, strict=True)
        }
        variants.append(Variant(_HEADS.validate_python(dumped), {"head": name, **shown}))
    return variants
