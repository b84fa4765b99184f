"""Calibration: how a bundle reads logits, and how that is fitted on images that its head was not trained on.

The threshold and the lower edge of the band are split-conformal quantiles: their guarantee needs no model of the
scores, only that a new image is exchangeable with the calibration images of its class. It is marginal: it holds on
average over the draw of the calibration images, and says nothing of images from elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.evaluate.scores import sigmoid
from stages.measure.metrics import unlabelled_threshold
from storage.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

REAL, SYNTHETIC, UNSURE = "real", "synthetic", "unsure"

_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
_Share = Annotated[float, Field(gt=0, lt=1)]
_Count = Annotated[int, Field(ge=0)]


class Platt(BaseModel):
    """Probability = sigmoid(slope * logit + offset) (Platt 1999)."""

    model_config = _CONFIG

    slope: Annotated[float, Field(gt=0)]
    offset: float

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, stated: Any) -> Any:
        """Read what bundles of version 1 state: a temperature is a slope without an offset."""
        if isinstance(stated, dict) and stated.get("kind") == "isotonic":
            raise ValueError("isotonic scaling is no longer read; make the bundle again with `ltdpipe bundle`")
        match stated:
            case {"kind": "temperature", "value": float(value)} if value > 0:
                return {"slope": 1 / value, "offset": 0.0}
        return stated


class Calibration(BaseModel):
    """How logits are read: synthetic above ``threshold``, real up to ``real_up_to``, unsure between.

    Attributes:
        threshold: a logit.
        real_up_to: a logit, at most the threshold; None: no band, everything up to the threshold is real.
        scaling: logit -> probability where both classes are equally likely; None: sigmoid(logit - threshold), which is
            0.5 at the threshold and otherwise not calibrated.
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
    scaling: Platt | None = None
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
        """Return (N,) probabilities that images are synthetic; they rise with the logits."""
        if self.scaling is None:
            return sigmoid(logits - self.threshold)
        return sigmoid(self.scaling.slope * logits + self.scaling.offset)

    @property
    def synthetic_above(self) -> float:
        """The probability of an image at the threshold: above it the verdict is synthetic."""
        return float(self.probabilities(np.array([self.threshold]))[0])

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
) -> Calibration:
    """Calibrate on images whose class is known.

    Args:
        labels: (N,) 0 real, 1 synthetic.
        logits: (N,) of the same images, none of which trained the head.
        source: what they are, for the record.
        target_fpr: alpha, the share of real images that may be called synthetic.
        unsure: epsilon, the share of synthetic images that may be called real; None: there is no band.

    Raises:
        DataError: too few images (the message says how many are needed), logits that are all the same or not finite, or
            synthetic images whose logits are not greater than those of real ones.
    """
    reals, fakes = logits[labels == 0], logits[labels == 1]
    threshold = conformal_threshold(reals, target_fpr)
    low = None if unsure is None else min(conformal_low(fakes, unsure), threshold)
    _check_spread(logits, source)
    return Calibration(
        threshold=threshold,
        real_up_to=low,
        scaling=fit_platt(reals, fakes, source) if len(fakes) else None,
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
        DataError: there are fewer than ``at_least`` of them, or their logits are all the same or not finite.
    """
    if len(logits) < at_least:
        raise DataError(
            f"{source} has {len(logits)} unlabelled images, and a threshold from them needs at least {at_least}; add "
            "images of the target"
        )
    _check_spread(logits, source)
    return Calibration(
        threshold=float(unlabelled_threshold(logits, share)),
        source=source,
        n_unlabelled=len(logits),
        guarantee=(
            f"none: of {len(logits)} unlabelled images the share of {share:g} with the greatest logits is taken for "
            "synthetic, and the threshold lies halfway between the mean logits of the two parts; it is right where "
            "that share of the target is synthetic and synthetic images have greater logits"
        ),
    )


def fit_platt(reals: NDArray[np.float64], fakes: NDArray[np.float64], source: str) -> Platt:
    """Fit probabilities to logits (n,) of real and (m,) of synthetic images, both classes counting the same.

    Targets are Platt's (1 / (n + 2) for reals, (m + 1) / (m + 2) for synthetic images instead of 0 and 1): no finite
    number of images shows that a probability is 0 or 1, and the slope is finite where the classes do not overlap.

    Raises:
        DataError: the mean logit of synthetic images is not greater than that of real ones.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import, and only calibration needs it

    if fakes.mean() <= reals.mean():
        raise DataError(
            f"{source}: the mean logit is {fakes.mean():.4g} for synthetic images, {reals.mean():.4g} for real ones, "
            "expected a greater one for synthetic; check the labels, or use another head"
        )
    logits = np.concatenate([reals, fakes])
    targets = np.repeat([1 / (len(reals) + 2), (len(fakes) + 1) / (len(fakes) + 2)], [len(reals), len(fakes)])
    weights = np.repeat([0.5 / len(reals), 0.5 / len(fakes)], [len(reals), len(fakes)])
    centre, spread = logits.mean(), logits.std()
    # an image of target t counts as t of a synthetic and 1 - t of a real one; C leaves no regularisation to speak of
    model = LogisticRegression(C=1e9, solver="newton-cholesky", tol=1e-8, max_iter=1000).fit(
        np.tile((logits - centre) / spread, 2)[:, None],
        np.repeat([0, 1], len(logits)),
        sample_weight=np.concatenate([weights * (1 - targets), weights * targets]),
    )
    slope = float(model.coef_[0, 0]) / spread
    return Platt(slope=slope, offset=float(model.intercept_[0]) - slope * centre)


def _check_spread(logits: NDArray[np.float64], source: str) -> None:
    if not np.isfinite(logits).all():
        raise DataError(f"{source}: the head gives logits that are not finite; train it again")
    if len(logits) > 1 and logits.min() == logits.max():
        raise DataError(
            f"{source}: the head gives all {len(logits)} images the same logit, {logits[0]:.4g}, which sets no "
            "threshold; use another head"
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
    low, high = _range(n_real, target_fpr, "target-fpr", "real")
    promise = (
        f"a new real image that is exchangeable with the {n_real} real calibration images is called synthetic with "
        f"probability at most {target_fpr:g}"
    )
    rates = f"the false-positive rate is itself random: it lies between {low:.4f} and {high:.4f}"
    if unsure is not None:
        low, high = _range(n_fake, unsure, "unsure", "synthetic")
        promise += (
            f", and a new synthetic image that is exchangeable with the {n_fake} synthetic ones is called real with "
            f"probability at most {unsure:g}"
        )
        rates += f" (the share of synthetic images that are called real between {low:.4f} and {high:.4f})"
    return (
        f"{promise}. The probability is marginal: over the calibration images and the new one together. For this one "
        f"calibration {rates} in 95 % of calibrations with as many images (for logits without ties). Nothing is "
        "promised for images of another source: other cameras, other processing, generators that are not among the "
        "calibration images."
    )


def _range(images: int, rate: float, option: str, word: str) -> tuple[float, float]:
    """The range that holds the rate of errors of 95 % of calibrations."""
    from scipy.stats import beta  # noqa: PLC0415 - slow to import, and only calibration needs it

    allowed = _allowed(images, rate, option, word)
    low, high = beta.ppf([0.025, 0.975], allowed, images + 1 - allowed)
    return float(low), float(high)
