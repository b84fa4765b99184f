"""Settings of extraction: each of them can change features, and each is in the feature key. No torch is imported."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stages.extract.registry import BACKBONES
from storage.errors import SettingError

GeometryName = Literal["crop224-pad", "squash256-crop224", "short224-crop", "tile224"]
TapName = Literal["cls", "ln2_cls", "grid", "embedding"]


def _known_backbone(name: str) -> str:
    if name not in BACKBONES:
        raise ValueError(f"no such backbone; allowed: {', '.join(BACKBONES)}")
    return name


def _readable_blocks(blocks: str | tuple[int, ...]) -> str | tuple[int, ...]:
    if isinstance(blocks, str) and blocks != "all" and not re.fullmatch(r"\d+-\d+", blocks):
        raise ValueError("expected all, a range such as 11-19 (both ends included), or a list of block numbers")
    return blocks


class ExtractSettings(BaseModel):
    """What reads the images of every corpus of a study.

    Attributes:
        backbone: a name in the backbone registry.
        weights: "default" (the registry's own), "random:SEED", or the path of a local weights file.
        taps: what is read from the backbone and stored.
        blocks: which blocks are stored: "all", a range such as "11-19" with both ends, or a list of 0-based numbers.
            Blocks behind the last one are not computed unless the tap "embedding" needs them.
        grid: G, cells a side of the tap "grid"; only with that tap.
        precision: "fp32", "fp16" (CUDA only), or "auto": fp16 on CUDA, else fp32.
        apply_exif: turn pictures as their EXIF orientation says; the protocols of the field do not.
        augmentation_seed: of the random views (train, val, noise).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Annotated[str, AfterValidator(_known_backbone)] = "clip-vit-l-14"
    weights: str = "default"
    taps: tuple[TapName, ...] = Field(default=("cls", "embedding"), min_length=1)
    blocks: Annotated[str | tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_readable_blocks)] = "all"
    grid: Annotated[int, Field(ge=1, le=64)] | None = None
    precision: Literal["auto", "fp32", "fp16"] = "auto"
    apply_exif: bool = False
    augmentation_seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _grid_with_its_tap(self) -> ExtractSettings:
        if ("grid" in self.taps) != (self.grid is not None):
            raise ValueError(
                "the tap `grid` and the key `grid` (cells a side, as in grid: 4) go together; set both or none"
            )
        return self

    def stored_blocks(self, total: int) -> tuple[int, ...]:
        """Return the numbers of the blocks to store, ascending.

        Args:
            total: L, how many blocks the backbone has.

        Raises:
            SettingError: a number is not one of the backbone's.
        """
        if self.blocks == "all":
            return tuple(range(total))
        if isinstance(self.blocks, str):
            first, last = map(int, self.blocks.split("-"))
            chosen = range(first, last + 1)
        else:
            chosen = sorted(set(self.blocks))  # type: ignore[assignment]
        if not chosen or max(chosen) >= total:
            raise SettingError(
                f"extract.blocks {self.blocks!r}: {self.backbone} has the blocks 0-{total - 1}; choose some of these"
            )
        return tuple(chosen)
