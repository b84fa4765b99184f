"""A trained head -> a bundle: one file that predicts without the project it came from."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from stages.analyse.transitions import neighbouring, transitions
from stages.extract.registry import BACKBONES
from stages.extract.views import GEOMETRIES, Recipe, decoder_name, view_spec
from stages.heads.model_card import model_card
from stages.heads.settings import HeadSettings
from stages.predict.bundle import Bundle, loaded_head, packed, write_bundle
from stages.predict.card import Band, Bands, Card, ClassBands
from stages.predict.contributions import CONSTANT, contributions
from stages.predict.features import open_features
from storage.atomic import sha256_of
from storage.errors import DataError, SettingError
from storage.headfile import load_head
from storage.spec import FeatureSpec
from storage.views import View

if TYPE_CHECKING:
    from pathlib import Path

    from stages.heads.head import Head
    from storage.features import FeatureTable

DEFAULT_GEOMETRY = "crop224-pad"
_BATCH = 256
_SAMPLE = 2000  # images of a class from which the spread of contributions is taken


def run(*, head: Path, out: Path, features: Path | None = None, geometry: str | None = None, about: str = "") -> Card:
    """Write a bundle to ``out``, not calibrated yet, and return what it states; see :func:`make`."""
    made = make(head=head, features=features, geometry=geometry, about=about)
    write_bundle(out, made.head, made.card)
    return made.card


def make(*, head: Path, features: Path | None = None, geometry: str | None = None, about: str = "") -> Bundle:
    """Make a bundle in memory, not calibrated yet.

    Args:
        head: a head file.
        features: the clean view of the training corpus; its bands go into the bundle, for ``ltdpipe explain``.
        geometry: how images become the backbone's input; None: as in training where it read the clean view, else
            crop224-pad.
        about: the model card; empty: the one that the head file gives.

    Raises:
        DataError: a file is missing or damaged, or the features are not those of the head's backbone.
        SettingError: the backbone or the geometry is not known.
    """
    weights, metadata = load_head(head)
    lacking = [name for name in ("settings", "feature_spec") if name not in metadata]
    if lacking:
        raise DataError(f"head {head} does not say its {', '.join(lacking)}; train it again with `ltdpipe train`")
    trained = FeatureSpec.from_json(metadata["feature_spec"])
    if trained.backbone not in BACKBONES:
        raise SettingError(f"head {head} reads the backbone {trained.backbone!r}, which is not known here")
    settings: HeadSettings = TypeAdapter(HeadSettings).validate_python(metadata["settings"])
    module = loaded_head(head, settings, trained, {name: tensor.float() for name, tensor in weights.items()})
    chosen = _geometry(geometry, trained)
    apply_exif = trained.view.get("decoder") == decoder_name(apply_exif=True)
    view = view_spec(View("clean"), Recipe(chosen, BACKBONES[trained.backbone].size), apply_exif=apply_exif)
    spec = replace(
        trained,
        view=view | {"decoder": trained.view.get("decoder", view["decoder"])},
        taps=(module.reads.tap,),
        stored_blocks=module.reads.blocks,
        grid=None,
    )
    try:
        card = Card(
            name=str(metadata.get("head", head.stem)),
            seed=metadata.get("seed"),
            settings=settings,
            tap=module.reads.tap,
            blocks=module.reads.blocks,
            spec=spec,
            geometry=chosen,  # type: ignore[arg-type]
            apply_exif=apply_exif,
            provenance={name: value for name, value in metadata.items() if name not in {"settings", "feature_spec"}},
            head_sha256=sha256_of(head),
            bands=None if features is None else _bands(features, module, spec),
            about=about or _card_of(head),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"head {head} cannot become a bundle: {first['loc']}: {first['msg']}") from error
    return Bundle(head, card, module, hashlib.sha256(packed(module, card)).hexdigest()[:12])


def _geometry(geometry: str | None, trained: FeatureSpec) -> str:
    if geometry is None:
        clean = trained.view.get("augmentation", "none") == "none"
        geometry = trained.view.get("geometry", DEFAULT_GEOMETRY) if clean else DEFAULT_GEOMETRY
    if geometry not in GEOMETRIES:
        raise SettingError(f"geometry {geometry!r} is not known; choose from {', '.join(GEOMETRIES)}")
    return geometry


def _card_of(head: Path) -> str:
    try:
        return model_card(head)
    except KeyError as error:
        raise DataError(
            f"head {head} does not say its {error}, which its model card needs; name one by --card"
        ) from error


def _bands(features: Path, head: Head, spec: FeatureSpec) -> Bands:
    table = open_features(features, spec, but_view=True)
    labels = table.index["label"]
    if labels.null_count:
        raise DataError(f"{features} holds images without a label; bands need the features of a labelled corpus")
    groups = labels.to_numpy().astype(np.int64)
    blocks = sorted(table.spec.stored_blocks)
    starts = neighbouring(blocks)
    if not starts:
        raise DataError(f"{features} holds blocks {blocks}; bands need the class tokens of neighbouring blocks")
    if np.bincount(groups, minlength=2).min() < 2:
        raise DataError(
            f"{features} has {(groups == 0).sum()} real and {groups.sum()} synthetic images; bands need two of each"
        )
    moved = np.concatenate(
        [transitions(cls, blocks, first_row=rows.start) for rows, cls in table.batches(blocks=blocks, size=_BATCH)]
    )
    real, synthetic = (
        _class_bands(moved[groups == label], _contributions(table, head, groups == label)) for label in (0, 1)
    )
    return Bands(corpus=table.corpus, transitions=tuple(starts), real=real, synthetic=synthetic)


def _class_bands(moved: np.ndarray[Any, Any], parts: dict[str, tuple[float, float]]) -> ClassBands:
    """Bands of the images of one class; moved: (N, T, 2)."""
    cosine, l2 = (
        Band(mean=tuple(moved[:, :, at].mean(axis=0).tolist()), std=tuple(moved[:, :, at].std(axis=0, ddof=1).tolist()))
        for at in (0, 1)
    )
    return ClassBands(images=len(moved), cosine=cosine, l2=l2, contributions=parts)


def _contributions(table: FeatureTable, head: Head, of_class: np.ndarray[Any, Any]) -> dict[str, tuple[float, float]]:
    """Name of a branch -> mean and standard deviation of its part of the logit, over a sample of a class's images."""
    rows = np.flatnonzero(of_class)
    sample = rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).round().astype(np.int64)]
    found = []
    for start in range(0, len(sample), _BATCH):
        part = table.read(head.reads.tap, blocks=head.reads.blocks or None, rows=sample[start : start + _BATCH])
        found.append(contributions(head, torch.from_numpy(part).float()))
    joined = {name: torch.cat([parts[name] for parts in found]).numpy() for name in found[0] if name != CONSTANT}
    return {name: (float(values.mean()), float(values.std(ddof=1))) for name, values in joined.items()}
