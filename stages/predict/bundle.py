"""The bundle file: a head's weights and, as JSON in the header, all that predicting needs; read and written.

A bundle may come from anybody. Nothing in it is executed, no more memory is taken than the file has bytes, and
whatever is wrong with it ends in one line that names the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from pydantic import ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from stages.heads.file import first_fault, head_with
from stages.predict.likeness import Reference
from stages.predict.manifest import BundleManifest
from storage.atomic import atomic_path, sha256_of
from storage.errors import DataError
from storage.names import printable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from stages.heads.head import Head

MAX_HEADER_BYTES = 4 << 20  # a bundle with bands has a hundredth of it
_METADATA_KEY = "ltdpipe"
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
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"), allow_nan=False)
    weights = {name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}
    if reference is not None:
        weights[_REFERENCE] = torch.from_numpy(reference)
    with atomic_path(path) as partial:
        partial.write_bytes(safetensors.torch.save(weights, metadata={_METADATA_KEY: text}))


def read_bundle(path: Path) -> Bundle:
    """Read a bundle.

    Raises:
        DataError: it is missing, truncated, no bundle, of a newer form, or its weights do not fit what it states.
    """
    if path.is_dir():
        raise DataError(
            f"bundle {path} is a folder; the bundle, made by `ltdpipe bundle`, comes first, images after it"
        )
    if path.suffix == ".safetensors":
        raise DataError(f"{path} is a head file; make a bundle of it first: `ltdpipe bundle {path} -o detector.ltd`")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise DataError(
                f"{path} is no bundle of ltdpipe: its header states {length:,} bytes, more than {MAX_HEADER_BYTES:,}"
            )
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError as error:
        raise DataError(f"bundle {path} does not exist; make one with `ltdpipe bundle HEAD -o {path}`") from error
    except OSError as error:
        raise DataError(f"bundle {path} cannot be read: {error.strerror}") from error
    except SafetensorError as error:
        raise DataError(f"{path} is damaged, or no bundle ({_one_line(error)}); copy or make it again") from error
    if text is None:
        raise DataError(
            f"{path} is no bundle: it has no metadata of ltdpipe; make one with `ltdpipe bundle HEAD -o {path}`"
        )
    manifest = _manifest(path, text)
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
        logits = head.get_submodule("classifier")(exact).squeeze(1).double().numpy()
        if len(exact) < 2 or not exact.isfinite().all():
            raise ValueError("they are too few, or no finite numbers")
        return Reference(exact.numpy(), logits > manifest.calibration.threshold)
    except (IndexError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} holds images of its calibration that its head cannot read ({_one_line(error)}); calibrate it again"
        ) from error


def _manifest(path: Path, text: str) -> BundleManifest:
    try:
        content = from_json(text)
        json.dumps(content, allow_nan=False)  # JSON has no infinity, but 1e400 is read as one
        return BundleManifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("version",):
            version = printable(str(first["input"]))[:20]
            raise DataError(
                f"{path} is a bundle of version {version}, this ltdpipe reads version 2; make it again with "
                "`ltdpipe bundle`, or update ltdpipe"
            ) from error
        raise DataError(f"{path} is no bundle that can be used: {first_fault(error)}") from error
    except ValueError as error:
        raise DataError(f"{path} is no bundle: its metadata are no JSON ({_one_line(error)})") from error


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


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:300]
