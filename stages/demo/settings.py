"""Settings of one corpus of the demo study."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

GeneratorName = Literal["nearest", "grid", "bilinear", "bicubic"]


class DemoCorpus(BaseModel):
    """What to make: ``per_set`` real crops, and as many of every generator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    half: Literal["left", "right"]
    generators: tuple[GeneratorName, ...] = Field(min_length=1)
    per_set: int = Field(ge=1)
    seed: int = Field(ge=0)
