"""What a sweep compares. Free of torch."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import yaml

from stages.heads.settings import HeadSettings, LinearSettings, LtdSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FEW = (10, 100)  # images of a new generator


class Variant(NamedTuple):
    """One head of a sweep.

    Attributes:
        head: its settings.
        coordinates: where it lies among the others: column of the table -> value.
        generators: of the training corpus that train it -> how many images at most, None for all; None: everything.
    """

    head: HeadSettings
    coordinates: Mapping[str, int | str]
    generators: Mapping[str, int | None] | None = None


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


def generator_sweep(base: HeadSettings, images: Mapping[str, int]) -> list[Variant]:
    """Return the head ``base`` trained on parts of a corpus with ``images``, generator -> its training images.

    Coordinates are ``training``, in the words that tables use, ``generator`` (of generators until a month, the month:
    those released later are left out, and those of unknown release) and ``few``, of how many images of it.
    """
    every: dict[str, int | None] = dict.fromkeys(images)
    months = {name: month for name in images if (month := releases().get(name, ("", ""))[1])}

    def others(generator: str) -> dict[str, int | None]:
        return {name: None for name in every if name != generator}

    parts: list[tuple[str, str, int, Mapping[str, int | None]]] = [("all generators", "", 0, every)]
    parts += [("one generator alone", name, 0, {name: None}) for name in every]
    parts += [("all generators but one", name, 0, others(name)) for name in every]
    parts += [
        ("generators shown until a month", month, 0, {name: None for name in months if months[name] <= month})
        for month in sorted(set(months.values()))[:-1]
    ]
    few = "all generators but one, and a few images of it"
    parts += [(few, name, k, {**others(name), name: k}) for name in every for k in FEW if k < images[name]]
    return [
        Variant(base, {"training": training, "generator": name, "few": k}, generators)
        for training, name, k, generators in parts
    ]


def releases() -> dict[str, tuple[str, str]]:
    """Return generator -> the name that stands for it in all benchmarks, and the month when it was first shown."""
    listed = yaml.safe_load(files("stages.sweep").joinpath("releases.yaml").read_text("utf-8"))
    return {name: (entry["names"][0], entry["month"]) for entry in listed for name in entry["names"]}
