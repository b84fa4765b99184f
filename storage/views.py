"""The names of views: what ``corpora.<name>.views`` may say, and the one folder that each view's features lie in.

A setting is ``clean``, ``train:V``, ``val``, the same aligned (``align``, ``align-train:V``, ``align-val``),
``tencrop``, ``tiles:N``, ``web``, or a chain of degradations such as ``scale:0.5+jpeg:70`` (docs/views.md). ``train:5``
stands for the five views train-0 .. train-4: a view always gives one picture an image.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

VIEW = "clean"  # the view without augmentation: features/<corpus>/clean
ALIGN = "align"  # the clean view of images that are encoded alike in both classes
TEN_CROPS = 10
MOST_TILES = 64
_COUNTED = {"train": ("V with V views", 1, 1000), "tiles": ("N with at most N tiles, N", 2, MOST_TILES)}
# What the setting ``web`` stands for: the picture as platforms and people ship it again. A screenshot is scaled to the
# screen and saved as PNG, which loses nothing more.
WEB = ("fit:1080", "fit:512", "jpeg:75", "jpeg:60", "webp:75", "scale:0.75", "letterbox:0.1", "corner:0.6")


class Degradation(NamedTuple):
    """One step of a chain: a kind in ``DEGRADATIONS``, and its strength in the unit that ``DEGRADATIONS`` tells."""

    kind: str
    amount: float

    def __str__(self) -> str:
        """As the setting spells it, in one spelling: ``jpeg:70``, ``scale:0.5``."""
        return f"{self.kind}:{self.amount:g}"


class View(NamedTuple):
    """One way to look at every image of a corpus.

    Attributes:
        kind: "clean", "train", "val", "tencrop", "tiles" or "degraded"; or "thumbnail", which no setting stands for:
            the whole image, small, for people to look at.
        number: which of the augmented views, crops or tiles; 0 where there is only one.
        steps: the degradations, in the order they are applied; empty for most kinds.
        aligned: whether images are first encoded as those of the other class are (``stages.extract.align``).
        most: N of ``tiles:N``.
    """

    kind: str
    number: int = 0
    steps: tuple[Degradation, ...] = ()
    aligned: bool = False
    most: int = 1

    @property
    def directory(self) -> str:
        """Name of its folder below ``features/<corpus>``: ``train-0``, ``align``, ``scale-0.5+jpeg-70``."""
        if self.aligned:
            return ALIGN if self.kind == VIEW else f"{ALIGN}-{self._replace(aligned=False).directory}"
        if self.kind == "tiles":
            return f"tiles-{self.most}-{self.number}"
        if self.kind == "degraded":
            return "+".join(map(str, self.steps)).replace(":", "-")
        return f"{self.kind}-{self.number}" if self.kind in {"train", "tencrop"} else self.kind


# Kind -> (what its number means, which numbers are allowed).
DEGRADATIONS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "jpeg": ("a quality, a whole number in 1..100", lambda amount: amount in range(1, 101)),
    "webp": ("a quality, a whole number in 1..100", lambda amount: amount in range(1, 101)),
    "blur": ("sigma in pixels, above 0 and at most 20", lambda amount: 0 < amount <= 20),
    "scale": ("a factor, above 0 and at most 4", lambda amount: 0 < amount <= 4),
    "fit": ("the longer side in pixels, a whole number in 16..10000", lambda amount: amount in range(16, 10_001)),
    "letterbox": ("a share of the height, above 0 and at most 1", lambda amount: 0 < amount <= 1),
    "corner": ("a share of each side, above 0 and below 1", lambda amount: 0 < amount < 1),
    "noise": ("a standard deviation in grey levels, above 0 and at most 255", lambda amount: 0 < amount <= 255),
}


def expand_views(settings: Iterable[str]) -> tuple[View, ...]:
    """Return all views that the settings of a corpus stand for, in their order.

    Raises:
        ValueError: a setting is no view, or two stand for the same view; the message says what is allowed.
    """
    views = [view for setting in settings for view in _expand(setting)]
    twins = sorted({view.directory for view in views if views.count(view) > 1})
    if twins:
        raise ValueError(f"the view {', '.join(twins)} is asked for twice; name each view once")
    return tuple(views)


def check_tiles(views: Iterable[View], geometry: str) -> None:
    """Raise a ValueError where tiles are asked for of a geometry that scales or repeats images."""
    if geometry != "crop224-pad" and any(view.kind == "tiles" for view in views):
        raise ValueError(f"tiles are crops at an image's own resolution: geometry crop224-pad, found {geometry}")


def view_directories(settings: Iterable[str]) -> tuple[str, ...]:
    """Return the folder names of all views that the settings of a corpus stand for, in their order."""
    return tuple(view.directory for view in expand_views(settings))


def tile_corners(width: int, height: int, side: int, most: int) -> list[tuple[int, int]]:
    """Return the upper left corners of the crops that cover an image at its own resolution, row by row.

    They lie on a grid from edge to edge, with equal overlaps. Where more than ``most`` would be needed, the grid is
    that with the smallest cells, and strips between its crops are not seen. A side shorter than a crop has one.
    """
    width, height = max(width, side), max(height, side)
    grids = product(*(range(1, min(math.ceil(length / side), most) + 1) for length in (width, height)))
    fitting = ((columns, rows) for columns, rows in grids if columns * rows <= most)
    columns, rows = min(fitting, key=lambda grid: (max(width / grid[0], height / grid[1]), -grid[0] * grid[1]))
    lefts, tops = _evenly(width - side, columns), _evenly(height - side, rows)
    return [(left, top) for top in tops for left in lefts]


def _evenly(last: int, count: int) -> list[int]:
    """Return ``count`` places from 0 to ``last``, or the middle where it is one."""
    return [round(last * at / (count - 1)) for at in range(count)] if count > 1 else [round(last / 2)]


def _expand(setting: str) -> list[View]:
    kind, _, count = setting.partition(":")
    if setting in {VIEW, "val", ALIGN}:
        return [View(VIEW, aligned=True) if setting == ALIGN else View(setting)]
    if setting.startswith((f"{ALIGN}-train", f"{ALIGN}-val")):
        return [view._replace(aligned=True) for view in _expand(setting.removeprefix(f"{ALIGN}-"))]
    if setting == "web":
        return [view for each in WEB for view in _expand(each)]
    if setting == "tencrop":
        return [View("tencrop", number) for number in range(TEN_CROPS)]
    if kind in _COUNTED:
        what, least, greatest = _COUNTED[kind]
        if not count.isdecimal() or not least <= int(count) <= greatest:
            raise ValueError(f"view {setting!r}: expected {kind}:{what} in {least}..{greatest}, as in {kind}:5")
        return [View(kind, at, most=int(count) if kind == "tiles" else 1) for at in range(int(count))]
    return [View("degraded", steps=tuple(_step(setting, step) for step in setting.split("+")))]


def _step(setting: str, step: str) -> Degradation:
    kind, _, text = step.partition(":")
    if kind not in DEGRADATIONS:
        raise ValueError(
            f"view {setting!r}: {step!r} is no view; allowed: clean, train:V, val, align, align-train:V, align-val, "
            f"tencrop, tiles:N, web, and {', '.join(f'{name}:NUMBER' for name in DEGRADATIONS)}, chained with + as in "
            "scale:0.5+jpeg:70"
        )
    meaning, allowed = DEGRADATIONS[kind]
    try:
        amount = float(text)
    except ValueError:
        amount = float("nan")
    if not allowed(amount):
        raise ValueError(f"view {setting!r}: {kind} takes {meaning}, found {text or 'nothing'!r}")
    return Degradation(kind, float(f"{amount:g}"))  # exactly what its folder and the feature key say
