"""What a set of cached features is: every setting that can change a number in it, and the key made from them.

And the form of its numbers: the shape of each tap, and rounding to float16.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from storage.errors import DataError

SCHEMA_VERSION = 1

_IMAGE_TAPS = ("embedding", "pooled", "mean")  # one vector an image; the others have one for each block


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """The settings that decide the features' values (DESIGN: feature key).

    Batch size, workers, device and paths are left out on purpose: they must not change a value.

    Attributes:
        backbone: name in the backbone registry.
        weights: sha256 of the weights, hex; behind ``random:SEED:`` where a seed made them.
        activation: "quickgelu" or "gelu"; the wrong one silently gives other features.
        blocks: L, the number of transformer blocks of the backbone.
        stored_blocks: 0-based numbers of the blocks whose tokens are stored.
        width: D, the width of a token.
        embedding: E, the width of the final embedding after norm and projection.
        taps: what is stored; docs/backbones.md lists them.
        view: how an image file becomes the backbone's input pixels: decoder, geometry, augmentation, their versions.
        mean: per-channel mean of the normalisation, on the 0..1 scale.
        std: per-channel standard deviation of the normalisation.
        precision: arithmetic of the forward pass, "fp32" or "fp16".
        dtype: stored number format.
        extractor: version of the extraction code; raised by hand when an edit changes features.
        schema: version of the files' form.
        patches: P, the number of patch tokens; None where the tap "attention" is not stored (then not in the key).
    """

    backbone: str
    weights: str
    activation: str
    blocks: int
    stored_blocks: tuple[int, ...]
    width: int
    embedding: int
    taps: tuple[str, ...]
    view: dict[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: str
    extractor: int
    dtype: str = "float16"
    schema: int = SCHEMA_VERSION
    patches: int | None = None

    def to_json(self) -> str:
        """Return the canonical JSON text: sorted keys, no white space."""
        fields = dataclasses.asdict(self)
        if self.patches is None:
            del fields["patches"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, source: str) -> FeatureSpec:
        """Rebuild the spec that :meth:`to_json` wrote.

        Raises:
            DataError: it has a setting that is not known here; the message begins with ``source``, the file.
        """
        fields: dict[str, Any] = json.loads(text)
        unknown = sorted(fields.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise DataError(
                f"{source} was written by another version of ltdpipe: this one does not know the feature setting(s) "
                f"{', '.join(unknown)}; use that version, or make the features and what was trained on them anew"
            )
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**(fields | lists))

    @property
    def key(self) -> str:
        """32 hex digits of the sha256 over :meth:`to_json`: equal keys mean interchangeable features."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]

    def tap_shape(self, tap: str, images: int) -> tuple[int, ...]:
        """Return the shape of a tap of N ``images`` as stored; L counts the stored blocks.

        (L, N, D) for "cls" and "ln2_cls", (L, N, P) for "attention", (N, E) for "embedding", (N, D) for "pooled" and
        "mean".
        """
        width = {"embedding": self.embedding, "attention": self.patches or 0}.get(tap, self.width)
        return (images, width) if tap in _IMAGE_TAPS else (len(self.stored_blocks), images, width)

    def describe(self) -> str:
        """Say the settings in words, in one line, for people."""
        view = ", ".join(f"{name} {value}" for name, value in sorted(self.view.items()))
        stored = self.stored_blocks
        together = stored == tuple(range(stored[0], stored[-1] + 1))
        run = f"{stored[0]}..{stored[-1]}" if together else ", ".join(map(str, stored))
        return (
            f"{self.backbone} ({self.activation}, weights {self.weights[:8]}, {self.precision}), "
            f"{'+'.join(self.taps)} of blocks {run} of {self.blocks}; {view}"
        )

    def difference(self, other: FeatureSpec) -> str:
        """Say in words which settings differ: ``precision: fp32 here, fp16 there``; empty when none does."""
        mine, theirs = (
            vars(spec) | {f"view.{name}": value for name, value in spec.view.items()} for spec in (self, other)
        )
        return "; ".join(
            f"{name}: {mine.get(name)} here, {theirs.get(name)} there"
            for name in sorted((mine.keys() | theirs.keys()) - {"view"})
            if mine.get(name) != theirs.get(name)
        )


def image_axis(tap: str) -> int:
    """Return which axis of a stored tap counts images: 0 where there is one vector an image, 1 behind the blocks."""
    return 0 if tap in _IMAGE_TAPS else 1
