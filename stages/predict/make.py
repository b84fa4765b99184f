"""A trained head -> a bundle: one file that predicts without the project it came from.

Apart from :mod:`stages.predict.bundle`, so that loading a detector imports nothing that reads features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from pydantic import ValidationError

from stages.analyse.transitions import neighbouring, transitions
from stages.extract.registry import BACKBONES
from stages.extract.views import GEOMETRIES, Recipe, decoder_name, view_spec
from stages.heads.file import TrainedHead, first_fault
from stages.heads.model_card import model_card
from stages.predict.bundle import write_bundle
from stages.predict.explain import CONSTANT, contributions
from stages.predict.manifest import Band, Bands, BundleManifest, ClassBands
from stages.train.data import backbone_difference
from storage.atomic import sha256_of
from storage.errors import DataError, SettingError
from storage.features import FeatureTable
from storage.names import printable
from storage.views import ALIGN, VIEW, View, check_tiles, expand_views

if TYPE_CHECKING:
    from pathlib import Path

    from stages.extract.settings import GeometryName
    from stages.heads.head import Head
    from storage.spec import FeatureSpec

DEFAULT_GEOMETRY = "crop224-pad"
_BATCH = 256
_SAMPLE = 2000  # images of a class from which the spread of contributions is taken


def run(
    *, head: Path, out: Path, features: Path | None = None, geometry: str | None = None, plan: str = VIEW
) -> BundleManifest:
    """Write a bundle, not calibrated yet, and return what it states.

    Args:
        head: a head file.
        out: the bundle.
        features: the clean view of the training corpus; its bands go into the bundle, for ``ltdpipe explain``.
        geometry: how images become the backbone's input; None: as in training where it read the clean view, else
            crop224-pad.
        plan: the view in which images are read, "clean" or "tiles:N"; tiles need the geometry crop224-pad.

    Raises:
        DataError: a file is missing or damaged, or the features are not those of the head's backbone.
        SettingError: the backbone or the geometry is not known.
    """
    loaded = TrainedHead.load(head)
    trained, metadata, module = loaded.spec, loaded.metadata, loaded.module.cpu()
    if trained.backbone not in BACKBONES:
        raise SettingError(f"head {head} reads the backbone {trained.backbone!r}, which is not known here")
    if geometry is None:
        is_clean = trained.view.get("augmentation", "none") in {"none", ALIGN}
        geometry = trained.view.get("geometry", DEFAULT_GEOMETRY) if is_clean else DEFAULT_GEOMETRY
    if geometry not in GEOMETRIES:
        raise SettingError(f"geometry {geometry!r} is not known; choose from {', '.join(GEOMETRIES)}")
    apply_exif = trained.view.get("decoder") == decoder_name(apply_exif=True)
    view = view_spec(View("clean"), Recipe(geometry, BACKBONES[trained.backbone].size, apply_exif=apply_exif))
    spec = replace(
        trained,
        view=view | {"decoder": trained.view.get("decoder", view["decoder"])},
        taps=(module.reads.tap,),
        stored_blocks=module.reads.blocks,
        patches=None,
    )
    try:
        manifest = BundleManifest(
            name=str(metadata.get("head", head.stem)),
            seed=metadata.get("seed"),
            settings=loaded.settings,
            tap=module.reads.tap,
            blocks=module.reads.blocks,
            spec=spec,
            geometry=cast("GeometryName", geometry),
            tiles=_tiles(plan, geometry),
            apply_exif=apply_exif,
            provenance={name: value for name, value in metadata.items() if name not in {"settings", "feature_spec"}},
            head_sha256=sha256_of(head),
            bands=None if features is None else _bands(features, module, spec),
            about=model_card(head),
        )
    except ValidationError as error:
        raise DataError(f"head {head} cannot become a bundle: {first_fault(error)}") from error
    write_bundle(out, module, manifest)
    return manifest


def _tiles(plan: str, geometry: str) -> int | None:
    if plan == VIEW:
        return None
    try:
        (first, *_) = expand_views([plan])
        check_tiles([first], geometry)
    except ValueError as error:
        raise SettingError(f"--plan: {error}") from error
    if first.kind != "tiles":
        raise SettingError(f"--plan {plan!r}: expected clean or tiles:N, as in tiles:9")
    return first.most


def open_features(directory: Path, spec: FeatureSpec) -> FeatureTable:
    """Open an extracted view, of any geometry, for the head that reads ``spec``; a DataError names what differs."""
    table = FeatureTable.open(directory)
    difference = printable(backbone_difference(spec, table.spec))
    if difference:
        raise DataError(
            f"{directory} does not fit the head, which is `here`: {difference}; name features that were extracted with "
            "its settings"
        )
    return table


def _bands(features: Path, head: Head, spec: FeatureSpec) -> Bands:
    table = open_features(features, spec)
    if table.index["label"].null_count:
        raise DataError(f"{features} holds images without a label; bands need the features of a labelled corpus")
    labels = table.index["label"].to_numpy().astype(np.int64)
    counts = np.bincount(labels, minlength=2)
    if counts.min() < 2:
        raise DataError(f"{features} has {counts[0]} real and {counts[1]} synthetic images; bands need two of each")
    blocks = sorted(table.spec.stored_blocks)
    starts = neighbouring(blocks)
    if not starts:
        raise DataError(f"{features} holds blocks {blocks}; bands need the class tokens of neighbouring blocks")
    moved = np.concatenate(
        [transitions(cls, blocks, first_row=rows.start) for rows, cls in table.batches(blocks=blocks, size=_BATCH)]
    )

    def of_class(label: int) -> ClassBands:
        rows = np.flatnonzero(labels == label)
        mean, std = moved[rows].mean(axis=0), moved[rows].std(axis=0, ddof=1)  # (T, 2)
        cosine, l2 = (Band(mean=tuple(mean[:, at].tolist()), std=tuple(std[:, at].tolist())) for at in (0, 1))
        sample = rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).round().astype(np.int64)]
        read = table.read(head.reads.tap, blocks=head.reads.blocks or None, rows=sample)
        parts = contributions(head, torch.from_numpy(read).float())
        added = {name: (float(part.mean()), float(part.std())) for name, part in parts.items() if name != CONSTANT}
        return ClassBands(images=len(rows), cosine=cosine, l2=l2, contributions=added)

    return Bands(corpus=table.corpus, transitions=tuple(starts), real=of_class(0), synthetic=of_class(1))
