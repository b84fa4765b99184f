"""Settings of training that all heads share. Free of torch: read by every command that validates parameters."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """How a head is trained; the defaults are the paper's.

    Attributes:
        lr: learning rate of AdamW.
        epochs: passes over the training images.
        batch: images an optimizer step.
        validation_share: share of the training images held out to choose the best epoch, by content hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    lr: Annotated[float, Field(gt=0)] = 5e-5
    epochs: Annotated[int, Field(ge=1)] = 5
    batch: Annotated[int, Field(ge=1)] = 256
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
