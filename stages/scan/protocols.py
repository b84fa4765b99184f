"""Named lists of test sets, their published sizes, and the protocols that use them (``protocols.yaml``)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel

from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True)
class PublishedSize:
    """The published size of a test set; ``real`` and ``synthetic`` are None where only their sum is published."""

    images: int
    real: int | None = None
    synthetic: int | None = None

    def agrees(self, real: int, synthetic: int) -> bool:
        """Tell whether a set of so many images has this size."""
        if self.real is None:
            return self.images == real + synthetic
        return (self.real, self.synthetic) == (real, synthetic)

    def __str__(self) -> str:
        return f"{self.images} images" if self.real is None else f"{self.real} real and {self.synthetic} synthetic"


class SetList(BaseModel):
    """A named list of test sets.

    Attributes:
        name: such as "ufd16".
        layout: the layout whose sets it names.
        members: names of the sets, in the order of tables.
        geometry: how the protocol that made the list turns an image into 224 x 224 pixels.
        source: whose list it is.
        inpainting: the members that paint into real photographs ("DR").
    """

    name: str = ""
    layout: str
    members: tuple[str, ...]
    geometry: str
    source: str
    inpainting: tuple[str, ...] = ()

    def covered(self, sets: Collection[str]) -> str:
        """Say how much of the list some sets are, as every mean has to: "ufd16, 15 of 16 sets"."""
        return f"{self.name}, {sum(name in sets for name in self.members)} of {len(self.members)} sets"


class _Protocols(BaseModel):
    counts: dict[str, dict[str, int | tuple[int, int]]]  # layout -> set -> images, or real and synthetic ones
    lists: dict[str, SetList]
    protocols: dict[str, dict[str, dict[str, str]]]  # protocol -> layout -> settings of a corpus


@cache
def _content() -> _Protocols:
    return _Protocols.model_validate(yaml.safe_load(files("stages.scan").joinpath("protocols.yaml").read_text("utf-8")))


@cache
def set_lists() -> dict[str, SetList]:
    """Return all lists of test sets by name."""
    return {name: entry.model_copy(update={"name": name}) for name, entry in _content().lists.items()}


def set_list(name: str) -> SetList:
    """Return a list of test sets by name.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in set_lists():
        raise SettingError(f"list of test sets {name!r} is not known; choose from {', '.join(set_lists())}")
    return set_lists()[name]


@cache
def published_sizes(layout: str) -> dict[str, PublishedSize]:
    """Return set -> published size, for the sets of a layout whose size is published."""
    counts = _content().counts
    found = (counts["forensynths"] if layout == "ufd" else {}) | counts.get(layout, {})
    return {
        name: PublishedSize(size) if isinstance(size, int) else PublishedSize(sum(size), *size)
        for name, size in found.items()
    }


@cache
def known_sets(layout: str) -> frozenset[str]:
    """Return the names of a benchmark's sets: those with a published size, and those that a list names."""
    listed = (found.members for found in set_lists().values() if found.layout == layout)
    return frozenset(published_sizes(layout)).union(*listed)


@cache
def diffusion_sets() -> frozenset[str]:
    """Return the names of UFD's diffusion sets: all of its sets that ForenSynths has not."""
    return known_sets("ufd") - known_sets("forensynths")


def protocol_settings(protocol: str, layout: str) -> dict[str, str]:
    """Return what a protocol says about a benchmark: the keys ``sets`` and ``geometry`` of a corpus.

    Raises:
        SettingError: the protocol is not known, or says nothing about this layout.
    """
    protocols = _content().protocols
    if protocol not in protocols:
        raise SettingError(f"protocol {protocol!r} is not known; choose from {', '.join(protocols)}")
    if layout not in protocols[protocol]:
        raise SettingError(
            f"protocol {protocol!r} says nothing about layout {layout!r}, only about {', '.join(protocols[protocol])}; "
            "remove `protocol` and set `sets` and `geometry`"
        )
    return protocols[protocol][layout]
