"""The bundle file: a head's weights and, as JSON in the header, all that predicting needs; read and written.

A bundle may come from anybody: whatever is wrong with it ends in one line that names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from stages.heads.file import first_fault, head_with
from stages.predict.likeness import Reference
from stages.predict.manifest import BundleManifest
from storage.atomic import sha256_of
from storage.errors import DataError
from storage.headfile import load_stated, save_stated
from storage.names import printable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from stages.heads.head import Head

_REFERENCE = "calibration.features"


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        source: its file, for messages.
        head: in eval mode, without gradients.
        identity: first 12 hex digits of the file's sha256.
        reference: images that it was calibrated on; None where it was calibrated on scores, or by an earlier version.
    """

    source: Path
    manifest: BundleManifest
    head: Head
    identity: str
    reference: Reference | None = None


def write_bundle(
    path: Path, head: Head, manifest: BundleManifest, reference: NDArray[np.float16] | None = None
) -> None:
    """Write a bundle atomically; the same weights and manifest give the same bytes.

    ``reference`` (M, F): last features of images that it was calibrated on.
    """
    stated = manifest.model_dump(mode="json", exclude={"tiles"} if manifest.tiles is None else None)
    features = {} if reference is None else {_REFERENCE: torch.from_numpy(reference)}
    save_stated(path, {**head.state_dict(), **features}, stated)


def read_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        DataError: it is missing, truncated, no bundle, of a newer form, or its weights do not fit what it states.
    """
    if path.suffix == ".safetensors":
        raise DataError(f"{path} is a head file; make a bundle of it first: `ltdpipe bundle {path} -o detector.ltd`")
    weights, stated = load_stated(
        path, what="bundle", remedy="name one first that `ltdpipe bundle HEAD -o detector.ltd` made"
    )
    try:
        manifest = BundleManifest.model_validate(stated)
    except ValidationError as error:
        raise DataError(
            f"{path} is no bundle that this ltdpipe reads ({first_fault(error)}); make it again with `ltdpipe bundle`, "
            "or update ltdpipe"
        ) from error
    features = weights.pop(_REFERENCE, None)
    head = head_with(path, manifest.settings, manifest.spec, weights)
    if (head.reads.tap, head.reads.blocks) != (manifest.tap, manifest.blocks):
        raise DataError(
            f"{path} states that its head reads {manifest.tap} of blocks {str(manifest.blocks)[:200]}, but by its "
            f"settings it reads {head.reads.tap} of {head.reads.blocks}; make the bundle again"
        )
    reference = None if features is None else _reference(path, head, manifest, features)
    return Bundle(path, manifest, head, sha256_of(path)[:12], reference)


@torch.inference_mode()
def _reference(path: Path, head: Head, manifest: BundleManifest, features: Tensor) -> Reference:
    try:
        exact = features.float()
        logits = head.classifier(exact).squeeze(1).double().numpy()
        if len(exact) < 2 or not exact.isfinite().all():
            raise ValueError("they are too few, or no finite numbers")
        return Reference(exact.numpy(), logits > manifest.calibration.threshold)
    except (IndexError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} holds images of its calibration that its head cannot read ({error}); calibrate it again"
        ) from error


def bundle_card(path: Path) -> str:
    """Return the model card of a bundle in Markdown, with its calibration and the backbone it needs."""
    bundle = read_bundle(path)
    manifest, calibration, spec = bundle.manifest, bundle.manifest.calibration, bundle.manifest.spec
    counts = {"real": calibration.n_real, "synthetic": calibration.n_fake, "unlabelled": calibration.n_unlabelled}
    images = "".join(f", {count} {kind}" for kind, count in counts.items() if count)
    rows = {
        "Detector": bundle.identity,
        "Synthetic above logit": f"{calibration.threshold:.4f} (probability {calibration.synthetic_above:.4f})",
        "Real up to logit": "the threshold" if calibration.real_up_to is None else f"{calibration.real_up_to:.4f}",
        "Calibrated on": f"{calibration.source}{images}",
        "Guarantee": calibration.guarantee,
        "Trained on": str(manifest.provenance.get("corpus") or "see the card below"),
        "Backbone": f"{spec.backbone}, {'random ' if manifest.random_weights else ''}weights sha256 {spec.weights}, "
        f"{spec.precision}",
        "Reads": "one picture an image" if manifest.tiles is None else f"up to {manifest.tiles} tiles, their maximum",
        "Geometry": f"{manifest.geometry}, EXIF orientation {'applied' if manifest.apply_exif else 'ignored'}",
        "Bands of the training corpus": "none" if manifest.bands is None else manifest.bands.corpus,
    }
    lines = [f"| {name} | {printable(value).replace('|', '/')} |" for name, value in rows.items()]
    heading = f"# Bundle of {printable(manifest.name)}, seed {manifest.seed}"
    return "\n".join([heading, "", "| | |", "|---|---|", *lines, "", manifest.about.rstrip(), ""])
