"""What a bundle states beside the head's weights, validated as a whole: a bundle may come from anybody."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    field_serializer,
    field_validator,
    model_validator,
)

from stages.evaluate.scores import sigmoid
from stages.extract.registry import BACKBONES, has_random_weights
from stages.extract.settings import GeometryName
from stages.heads.settings import HeadSettings, HeadTap
from storage.spec import FeatureSpec
from storage.views import MOST_TILES

if TYPE_CHECKING:
    from numpy.typing import NDArray

REAL, SYNTHETIC, UNSURE = "real", "synthetic", "unsure"
# No head on a backbone of the registry is wider, deeper or has more blocks: what a hostile file may make us build.
_MAX_SIZE, _MAX_DEPTH = 1 << 16, 64

_Text = Annotated[str, Field(max_length=64 * 1024)]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Count = Annotated[int, Field(ge=0)]
_Number = Annotated[float, Field(ge=-1e9, le=1e9)]  # distances of float16 tokens stay far below
_Profile = Annotated[tuple[_Number, ...], Field(strict=False)]
_Blocks = Annotated[tuple[_Count, ...], Field(strict=False, max_length=1024)]


class _Stated(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Platt(_Stated):
    """Probability = sigmoid(slope * logit + offset) (Platt 1999)."""

    slope: Annotated[float, Field(gt=0)]
    offset: float


class Calibration(_Stated):
    """How logits are read: synthetic above ``threshold``, real up to ``real_up_to``, unsure between.

    Attributes:
        threshold: a logit.
        real_up_to: a logit, at most the threshold; None: everything up to the threshold is real.
        scaling: logit -> probability where both classes are equally likely; None: sigmoid(logit - threshold), which is
            0.5 at the threshold and otherwise not calibrated.
        target_fpr: alpha, the share of real images that may be called synthetic; None: not calibrated on reals.
        unsure: epsilon, the share of synthetic images that may be called real; None: there is no band.
        source: what it was calibrated on, in words.
        guarantee: what is promised, and under which condition.
    """

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


class Band(_Stated):
    """Mean and standard deviation of one quantity over the images of a class, for each of T transitions."""

    mean: _Profile
    std: _Profile


class ClassBands(_Stated):
    """The bands of one class.

    Attributes:
        images: how many they are from.
        cosine: similarity of the class tokens after adjacent blocks.
        l2: their distance.
        contributions: part of the head -> (mean, standard deviation) of what it adds to the logit.
    """

    images: Annotated[int, Field(ge=2)]
    cosine: Band
    l2: Band
    contributions: dict[str, Annotated[tuple[_Number, _Number], Field(strict=False)]] = {}


class Bands(_Stated):
    """Real and synthetic images of the training corpus, for ``ltdpipe explain`` to draw an image against.

    Transition k of the T ``transitions`` leads from block k to block k + 1.
    """

    corpus: _Text
    transitions: _Blocks
    real: ClassBands
    synthetic: ClassBands

    @model_validator(mode="after")
    def _one_value_per_transition(self) -> Bands:
        transitions = self.transitions
        if not transitions or any(k >= after for k, after in pairwise(transitions)):
            raise ValueError(f"transitions must rise, found {str(transitions)[:100]}")
        for band in (self.real.cosine, self.real.l2, self.synthetic.cosine, self.synthetic.l2):
            if {len(band.mean), len(band.std)} != {len(transitions)}:
                raise ValueError(
                    f"a band has {len(band.mean)} means and {len(band.std)} deviations for {len(transitions)} "
                    "transitions"
                )
        return self


class BundleManifest(_Stated):
    """All that a bundle states.

    Attributes:
        version: of this form.
        name: of the head.
        tap: what the head reads of the backbone, of ``blocks`` (none for the embedding).
        spec: the features it reads in the view it predicts from.
        geometry: how an image becomes the backbone's square input.
        tiles: an image is read as at most so many crops at its own resolution, and its logit is their maximum; None: in
            one picture.
        apply_exif: whether pictures are turned as their EXIF orientation says.
        provenance: what the head file says of its training.
        bands: of the training corpus; None where the bundle was made without its features.
        about: the model card, plain text.
    """

    kind: Literal["ltdpipe-bundle"] = "ltdpipe-bundle"
    version: Literal[2] = 2
    name: Annotated[str, Field(max_length=1024)]
    seed: int | None
    settings: HeadSettings
    tap: HeadTap
    blocks: _Blocks
    spec: FeatureSpec
    geometry: GeometryName
    tiles: Annotated[int, Field(ge=2, le=MOST_TILES)] | None = None
    apply_exif: bool = False
    calibration: Calibration = Calibration()
    provenance: dict[str, JsonValue]
    head_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bands: Bands | None = None
    about: _Text = ""

    @property
    def random_weights(self) -> bool:
        """Whether the backbone has no trained weights, as that of the demo."""
        return has_random_weights(self.spec.backbone, self.spec.weights)

    @field_validator("settings", mode="after")
    @classmethod
    def _moderate(cls, settings: Any) -> Any:
        for name, value in settings.model_dump(exclude={"train"}).items():
            numbers = value if isinstance(value, tuple) else (value,)
            limit = _MAX_DEPTH if name == "depth" else _MAX_SIZE
            if any(isinstance(number, int) and number > limit for number in numbers):
                raise ValueError(f"{name} {value} is beyond any head ({limit})")
        return settings

    @field_validator("spec", mode="plain")
    @classmethod
    def _of_known_backbone(cls, stated: Any) -> FeatureSpec:
        spec = TypeAdapter(FeatureSpec).validate_python(stated)
        unknown = stated.keys() - asdict(spec).keys() if isinstance(stated, dict) else ()
        if unknown:
            raise ValueError(f"the feature settings {', '.join(sorted(unknown))} are not known here")
        backbone = BACKBONES.get(spec.backbone)
        if backbone is None:
            raise ValueError(f"backbone {spec.backbone!r} is not known here")
        for name in ("blocks", "width", "embedding"):
            if getattr(spec, name) != getattr(backbone, name):
                raise ValueError(f"{name} {getattr(spec, name)}, but {backbone.name} has {getattr(backbone, name)}")
        return spec

    @field_serializer("spec")
    def _as_features_state_it(self, spec: FeatureSpec) -> Any:
        return json.loads(spec.to_json())

    @model_validator(mode="after")
    def _bands_of_the_backbone(self) -> BundleManifest:
        blocks = self.spec.blocks
        if self.bands is not None and self.bands.transitions[-1] >= blocks - 1:
            raise ValueError(f"bands of transition {self.bands.transitions[-1]}, but the backbone has {blocks} blocks")
        return self
