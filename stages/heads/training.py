"""Settings of training that all heads share. Free of torch: read by every command that validates parameters."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from storage.views import expand_views

HELD_OUT = "held-out"

_Lr = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]
_Patience = Annotated[int, Field(ge=0)]
_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Overrides(BaseModel):
    """Training settings that a method or head overrides; None keeps the study's."""

    model_config = _CONFIG

    lr: _Lr | None = None
    epochs: _Count | None = None
    batch: _Count | None = None
    patience: _Patience | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if value is not None}


class TrainSettings(BaseModel):
    """How heads are trained; the defaults are those of the LTD paper.

    Attributes:
        lr: learning rate of AdamW, with betas 0.9 and 0.999 and without weight decay.
        epochs: passes over the training images, at most.
        batch: images per optimizer step.
        patience: after so many epochs without a better validation accuracy the learning rate is divided by 10, and
            training ends when it falls below 1e-6 (UnivFD's schedule); 0 disables it.
        views: views of the training images, as in ``corpora.<name>.views``; epoch e reads view e mod V.
        validation: which images choose the best epoch: "held-out", a share of the training images, or the name of
            another split of the corpus, as "val" or, for the choice of the LTD authors, "test".
        validation_share: share of the training images that is held out, by content hash.
        validation_view: the view in which these images are read.
    """

    model_config = _CONFIG

    lr: _Lr = 5e-5
    epochs: _Count = 5
    batch: _Count = 256
    patience: _Patience = 0
    views: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("clean",)
    validation: Annotated[str, Field(min_length=1)] = HELD_OUT
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    validation_view: str = "clean"

    @field_validator("views")
    @classmethod
    def _are_views(cls, views: tuple[str, ...]) -> tuple[str, ...]:
        expand_views(views)
        return views

    @field_validator("validation_view")
    @classmethod
    def _is_one_view(cls, view: str) -> str:
        if len(expand_views([view])) != 1:
            raise ValueError(f"validation reads one view, as clean or val; {view!r} stands for several")
        return view
