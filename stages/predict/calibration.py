"""Calibration: how a bundle reads logits, and how that is fitted on images that its head was not trained on.

The threshold and the lower edge of the band are split-conformal quantiles: their guarantee needs no model of the
scores, only that a new image is exchangeable with the calibration images of its class. It is marginal: it holds on
average over the draw of the calibration images, and says nothing of images from elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.evaluate.scores import sigmoid
from storage.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

REAL, SYNTHETIC, UNSURE = "real", "synthetic", "unsure"
TEMPERATURES = (0.05, 50.0)  # where a fit ends when the classes are separated without error, or not at all

_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
_Numbers = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Count = Annotated[int, Field(ge=0)]


class Temperature(BaseModel):
    """Probability = sigmoid(logit / value)."""

    model_config = _CONFIG

    kind: Literal["temperature"] = "temperature"
    value: Annotated[float, Field(gt=0)]


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
    scaling: Annotated[Temperature | Isotonic, Field(discriminator="kind")] | None = None
    target_fpr: _Share | None = None
    unsure: _Share | None = None
    source: str = "not calibrated"
    n_real: _Count = 0
    n_fake: _Count = 0
    n_unlabelled: _Count = 0
    guarantee: str = "none: the threshold is logit 0, as the head was trained"

    @model_validator(mode="after")
    def _in_order(self) -> Calibration:
        if self.real_up_to is not None and self.real_up_to > self.threshold:
            raise ValueError(f"real_up_to {self.real_up_to} lies above the threshold {self.threshold}")
        return self

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N,) probabilities that images are synthetic."""
        if isinstance(self.scaling, Isotonic):
            return np.interp(logits, self.scaling.logits, self.scaling.values)
        return sigmoid(logits if self.scaling is None else logits / self.scaling.value)

    def verdicts(self, logits: NDArray[np.float64]) -> list[str]:
        """Return N words of "real", "synthetic" and "unsure"."""
        low = self.threshold if self.real_up_to is None else self.real_up_to
        return [SYNTHETIC if logit > self.threshold else REAL if logit <= low else UNSURE for logit in logits]


def conformal_threshold(reals: NDArray[np.float64], target_fpr: float) -> float:
    """Return the least logit above which a new image like ``reals`` (n,) lies with probability at most ``target_fpr``.

    Raises:
        DataError: there are too few of them; the message says how many are needed.
    """
    return float(np.sort(reals)[len(reals) - _allowed(len(reals), target_fpr, "target-fpr", "real")])


def conformal_low(fakes: NDArray[np.float64], unsure: float) -> float:
    """Return the greatest logit up to which a new image like ``fakes`` (n,) lies with probability at most ``unsure``.

    Raises:
        DataError: there are too few of them; the message says how many are needed.
    """
    place = _allowed(len(fakes), unsure, "unsure", "synthetic")
    return float(np.nextafter(np.sort(fakes)[place - 1], -np.inf))


def calibrate(
    labels: NDArray[np.integer[Any]],
    logits: NDArray[np.float64],
    *,
    source: str,
    target_fpr: float,
    unsure: float | None = None,
    scaling: Literal["temperature", "isotonic"] | None = "temperature",
) -> Calibration:
    """Calibrate on images whose class is known.

    Args:
        labels: (N,) 0 real, 1 synthetic.
        logits: (N,) of the same images, none of which trained the head.
        source: what they are, for the record.
        target_fpr: alpha, the share of real images that may be called synthetic.
        unsure: epsilon, the share of synthetic images that may be called real; None: there is no band.
        scaling: how probabilities are fitted, where both classes are there; None: they stay the sigmoid.

    Raises:
        DataError: too few images; the message says how many are needed.
    """
    reals, fakes = logits[labels == 0], logits[labels == 1]
    threshold = conformal_threshold(reals, target_fpr)
    fitted: Temperature | Isotonic | None = None
    if scaling is not None and len(fakes):
        fitted = _temperature(labels, logits) if scaling == "temperature" else _isotonic(labels, logits)
    return Calibration(
        threshold=threshold,
        real_up_to=None if unsure is None else min(conformal_low(fakes, unsure), threshold),
        scaling=fitted,
        target_fpr=target_fpr,
        unsure=unsure,
        source=source,
        n_real=len(reals),
        n_fake=len(fakes),
        guarantee=_guarantee(len(reals), len(fakes), target_fpr, unsure),
    )


def calibrate_unlabelled(logits: NDArray[np.float64], *, source: str, share: float, at_least: int) -> Calibration:
    """Set the threshold from ``logits`` (N,) of the target of which a ``share`` is synthetic, nobody knows which.

    Raises:
        DataError: there are less than ``at_least`` of them.
    """
    if len(logits) < at_least:
        raise DataError(
            f"{source} has {len(logits)} unlabelled images, and a threshold from their quantile needs at least "
            f"{at_least}; add images of the target"
        )
    error = math.sqrt(share * (1 - share) / len(logits))
    return Calibration(
        threshold=float(np.quantile(logits, 1 - share)),
        source=source,
        n_unlabelled=len(logits),
        guarantee=(
            f"none: the threshold is the quantile above which a share of {share:g} of {len(logits)} unlabelled images "
            f"lies; it is right where that share of the target is synthetic and synthetic images have greater logits "
            f"(sampling alone moves the share by {error:.3f}, one standard error)"
        ),
    )


def _allowed(images: int, rate: float, option: str, word: str) -> int:
    """How many of the images may lie on the wrong side, the new one counted in."""
    allowed = math.floor((images + 1) * rate + 1e-9)
    if allowed < 1:
        needed = math.ceil(1 / rate - 1e-9) - 1
        raise DataError(
            f"{images} held-out {word} images are too few for --{option} {rate:g}: at least {needed} are needed "
            f"(1 / {rate:g} - 1); add {word} images, or allow a greater share"
        )
    return allowed


def _guarantee(n_real: int, n_fake: int, target_fpr: float, unsure: float | None) -> str:
    from scipy.stats import beta  # noqa: PLC0415 - slow to import, and only calibration needs it

    allowed = _allowed(n_real, target_fpr, "target-fpr", "real")
    low, high = beta.ppf([0.025, 0.975], allowed, n_real + 1 - allowed)
    text = (
        f"a new real image that is exchangeable with the {n_real} real calibration images is called synthetic with "
        f"probability at most {target_fpr:g}"
    )
    if unsure is not None:
        text += (
            f", and a new synthetic image that is exchangeable with the {n_fake} synthetic ones is called real with "
            f"probability at most {unsure:g}"
        )
    return (
        f"{text}. The probability is marginal: over the calibration images and the new one together. For this one "
        f"calibration the false-positive rate is itself random: it lies between {low:.4f} and {high:.4f} in 95 % of "
        "calibrations with as many images (for logits without ties). Nothing is promised for images of another "
        "source: other cameras, other processing, generators that are not among the calibration images."
    )


def _class_weights(labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Weights (N,) under which both classes count the same: probabilities then speak of equal shares."""
    fake = labels == 1
    weights: NDArray[np.float64] = np.where(fake, 0.5 / fake.sum(), 0.5 / (~fake).sum())
    return weights


def _temperature(labels: NDArray[np.integer[Any]], logits: NDArray[np.float64]) -> Temperature:
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - as above

    weights, sign = _class_weights(labels), np.where(labels == 1, 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        return float((weights * np.logaddexp(0, -sign * logits / math.exp(log_temperature))).sum())

    found = minimize_scalar(loss, bounds=tuple(math.log(end) for end in TEMPERATURES), method="bounded")
    return Temperature(value=math.exp(float(found.x)))


def _isotonic(labels: NDArray[np.integer[Any]], logits: NDArray[np.float64]) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - as above

    # no finite number of images shows that a probability is 0 or 1: the rule of succession bounds it
    edge = 1 / (min((labels == 0).sum(), (labels == 1).sum()) + 2)
    model = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip")
    model.fit(logits, labels == 1, sample_weight=_class_weights(labels) * len(labels))
    knots, first = np.unique(model.X_thresholds_, return_index=True)
    return Isotonic(logits=tuple(knots.tolist()), values=tuple(model.y_thresholds_[first].tolist()))
