"""From a logit to a verdict and a probability: what a bundle knows of its calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.evaluate.scores import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

REAL, SYNTHETIC, UNSURE = "real", "synthetic", "unsure"
_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
_Numbers = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class Temperature(BaseModel):
    """Probability = sigmoid(logit / value)."""

    model_config = _CONFIG

    kind: Literal["temperature"] = "temperature"
    value: Annotated[float, Field(gt=0)]

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) probabilities of logits (N,)."""
        return sigmoid(logits / self.value)


class Isotonic(BaseModel):
    """Probability = linear interpolation between knots, constant beyond them."""

    model_config = _CONFIG

    kind: Literal["isotonic"] = "isotonic"
    logits: _Numbers
    values: _Numbers

    @model_validator(mode="after")
    def _are_knots(self) -> Isotonic:
        rising = all(np.diff(self.logits) > 0) and all(np.diff(self.values) >= 0)
        if len(self.logits) != len(self.values) or not rising or self.values[0] < 0 or self.values[-1] > 1:
            raise ValueError("knots must be as many logits as values, logits rising, values not falling, within 0..1")
        return self

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) probabilities of logits (N,)."""
        return np.interp(logits, self.logits, self.values)


Scaling = Annotated[Temperature | Isotonic, Field(discriminator="kind")]


class Calibration(BaseModel):
    """How logits are read: synthetic above ``threshold``, real up to ``real_up_to``, unsure between.

    Attributes:
        threshold: a logit.
        real_up_to: a logit, at most the threshold; None: no band, everything up to the threshold is real.
        scaling: logit -> probability; None: the sigmoid.
        target_fpr: alpha, the share of real images that may be called synthetic; None: not calibrated on reals.
        unsure: epsilon, the share of synthetic images that may be called real; None: there is no band.
        source: what it was calibrated on, in words.
        n_real: real images used.
        n_fake: synthetic images used.
        n_unlabelled: images used without their class.
        guarantee: what is promised, and under which condition.
    """

    model_config = _CONFIG

    threshold: float = 0.0
    real_up_to: float | None = None
    scaling: Scaling | None = None
    target_fpr: _Share | None = None
    unsure: _Share | None = None
    source: str = "not calibrated"
    n_real: Annotated[int, Field(ge=0)] = 0
    n_fake: Annotated[int, Field(ge=0)] = 0
    n_unlabelled: Annotated[int, Field(ge=0)] = 0
    guarantee: str = "none: the threshold is logit 0, as the head was trained"

    @model_validator(mode="after")
    def _in_order(self) -> Calibration:
        if self.real_up_to is not None and self.real_up_to > self.threshold:
            raise ValueError(f"real_up_to {self.real_up_to} lies above the threshold {self.threshold}")
        return self

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) probabilities that images are synthetic."""
        return sigmoid(logits) if self.scaling is None else self.scaling.probabilities(logits)

    def verdicts(self, logits: NDArray[np.float64]) -> list[str]:
        """Return N words of "real", "synthetic" and "unsure"."""
        low = self.threshold if self.real_up_to is None else self.real_up_to
        return [SYNTHETIC if logit > self.threshold else REAL if logit <= low else UNSURE for logit in logits]
