"""What a bundle says beside the head's weights: checked as a whole, since a bundle may come from anybody."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    field_serializer,
    field_validator,
    model_validator,
)

from stages.extract.registry import BACKBONES
from stages.extract.settings import GeometryName
from stages.heads.settings import HeadSettings
from stages.predict.calibration import Calibration
from storage.names import printable
from storage.spec import FeatureSpec

# No head of a backbone in the registry is wider, deeper or has more blocks: what a hostile file may make us build.
MOST = 1 << 16
MOST_LAYERS = 64
_MOST_SHOWN = 500

_CONFIG = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
_Text = Annotated[str, Field(max_length=64 * 1024)]
_Number = Annotated[float, Field(ge=-1e9, le=1e9)]  # distances of float16 tokens stay far below
_Profile = Annotated[tuple[_Number, ...], Field(strict=False)]
_Blocks = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, max_length=1024)]


def _version(stated: Any) -> Any:
    return 2 if stated == 1 else stated  # version 1 differs in how it states probabilities; ``Platt`` reads both


class Band(BaseModel):
    """How one quantity moves over the transitions in the images of one class: mean and standard deviation of each."""

    model_config = _CONFIG

    mean: _Profile
    std: _Profile


class ClassBands(BaseModel):
    """The bands of one class.

    Attributes:
        images: how many they are from.
        cosine: similarity of the class token after adjacent blocks.
        l2: their distance.
        contributions: name of a branch -> (mean, standard deviation) of what it adds to the logit.
    """

    model_config = _CONFIG

    images: Annotated[int, Field(ge=2)]
    cosine: Band
    l2: Band
    contributions: dict[str, Annotated[tuple[_Number, _Number], Field(strict=False)]] = {}


class Bands(BaseModel):
    """Real and synthetic images of the training corpus, for ``ltdpipe explain`` to draw an image against.

    Attributes:
        corpus: name of the corpus.
        transitions: T block numbers k; transition k leads from block k to block k + 1.
        real: bands over the T transitions.
        synthetic: the same.
    """

    model_config = _CONFIG

    corpus: _Text
    transitions: _Blocks
    real: ClassBands
    synthetic: ClassBands

    @model_validator(mode="after")
    def _of_as_many_transitions(self) -> Bands:
        found = self.transitions
        if not found or any(k >= after for k, after in pairwise(found)):
            raise ValueError(f"transitions must rise, found {str(found)[:100]}")
        for band in (self.real.cosine, self.real.l2, self.synthetic.cosine, self.synthetic.l2):
            if {len(band.mean), len(band.std)} != {len(found)}:
                raise ValueError(
                    f"a band has {len(band.mean)} means and {len(band.std)} deviations for {len(found)} transitions"
                )
        return self


class Card(BaseModel):
    """All that a bundle states.

    Attributes:
        kind: tells a bundle from other files.
        version: of this form.
        name: of the head.
        seed: that it was trained with.
        settings: of the head.
        tap: what it reads of the backbone.
        blocks: of which blocks; empty for the embedding.
        spec: the features it reads in the view it predicts from: backbone, sha256 of its weights, activation, decoder,
            geometry, normalisation, precision.
        geometry: how an image becomes the backbone's square input.
        apply_exif: whether pictures are turned as their EXIF orientation says.
        calibration: threshold, band and probabilities.
        provenance: what the head file says of its training.
        head_sha256: sha256 of the head file.
        bands: see there; None where the bundle was made without the features of the training corpus.
        about: the model card, plain text.
    """

    model_config = _CONFIG

    kind: Literal["ltdpipe-bundle"] = "ltdpipe-bundle"
    version: Annotated[Literal[2], BeforeValidator(_version)] = 2
    name: Annotated[str, Field(max_length=1024)]
    seed: int | None
    settings: HeadSettings
    tap: Literal["cls", "ln2_cls", "embedding"]
    blocks: _Blocks
    spec: FeatureSpec
    geometry: GeometryName
    apply_exif: bool = False
    calibration: Calibration = Calibration()
    provenance: dict[str, JsonValue]
    head_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bands: Bands | None = None
    about: _Text = ""

    @field_validator("settings", mode="after")
    @classmethod
    def _moderate(cls, settings: Any) -> Any:
        for name, value in settings.model_dump(exclude={"train"}).items():
            numbers = value if isinstance(value, tuple) else (value,)
            most = MOST_LAYERS if name == "depth" else MOST
            if any(isinstance(number, int) and number > most for number in numbers):
                raise ValueError(f"{name} {value} is beyond any head ({most})")
        return settings

    @field_validator("spec", mode="plain")
    @classmethod
    def _of_known_backbone(cls, stated: Any) -> FeatureSpec:
        spec = TypeAdapter(FeatureSpec).validate_python(stated)
        unknown = stated.keys() - asdict(spec).keys() if isinstance(stated, dict) else ()
        if unknown:
            raise ValueError(f"the feature settings {', '.join(sorted(unknown))} are not known here")
        card = BACKBONES.get(spec.backbone)
        if card is None:
            raise ValueError(f"backbone {spec.backbone!r} is not known here")
        for name in ("blocks", "width", "embedding"):
            if getattr(spec, name) != getattr(card, name):
                raise ValueError(f"{name} {getattr(spec, name)}, but {card.name} has {getattr(card, name)}")
        return spec

    @field_serializer("spec")
    def _as_features_state_it(self, spec: FeatureSpec) -> Any:
        return json.loads(spec.to_json())

    @model_validator(mode="after")
    def _bands_of_the_backbone(self) -> Card:
        blocks = self.spec.blocks
        if self.bands is not None and self.bands.transitions[-1] >= blocks - 1:
            raise ValueError(f"bands of transition {self.bands.transitions[-1]}, but the backbone has {blocks} blocks")
        return self


def difference(here: FeatureSpec, there: FeatureSpec, *, but_view: bool = False) -> str:
    """Say in one line which settings of two specs differ, but for which taps and blocks are stored; empty: none does.

    Args:
        here: that of a bundle or head.
        there: that of a backbone, or of stored features.
        but_view: leave out how images become pixels.
    """
    stored: dict[str, Any] = {"taps": (), "stored_blocks": (), "grid": None, **({"view": {}} if but_view else {})}
    found = printable(replace(here, **stored).difference(replace(there, **stored)))
    return found if len(found) <= _MOST_SHOWN else f"{found[:_MOST_SHOWN]}..."
