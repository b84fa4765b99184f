"""Settings of extraction: each of them can change features, and each is in the feature key."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

VIEW = "clean"  # the view without augmentation: features/<corpus>/clean

BackboneName = Literal["demo-vit", "clip-vit-l-14"]
GeometryName = Literal["crop224-pad", "squash256-crop224"]
TapName = Literal["cls", "embedding"]


class ExtractSettings(BaseModel):
    """What reads the images of every corpus of a study.

    Attributes:
        backbone: a name in the backbone registry.
        weights: "default" (the registry's own), "random:SEED", or the path of a local weights file.
        taps: what is read from the backbone and stored.
        precision: "fp32", "fp16" (CUDA only), or "auto": fp16 on CUDA, else fp32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: BackboneName = "clip-vit-l-14"
    weights: str = "default"
    taps: tuple[TapName, ...] = Field(default=("cls", "embedding"), min_length=1)
    precision: Literal["auto", "fp32", "fp16"] = "auto"
