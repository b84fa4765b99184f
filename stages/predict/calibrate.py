"""Calibrate a bundle on images that its head was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import ValidationError

from stages.evaluate.scores import HELD_OUT, read_scores
from stages.heads.settings import TrainSettings
from stages.measure.metrics import UNLABELLED
from stages.predict.bundle import Bundle, read_bundle, write_bundle
from stages.predict.calibration import calibrate, calibrate_unlabelled
from stages.predict.features import open_features
from stages.predict.make import make
from stages.predict.results import read_rows
from stages.train.data import split_rows
from storage.errors import DataError, SettingError
from storage.names import printable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.predict.calibration import Calibration

Classes = Literal["labelled", "real", "unlabelled"]
_BATCH = 1024


# Logits (N,), labels (N,) where they are known, and what the images are.
_Images = tuple["NDArray[np.float64]", "NDArray[np.int64] | None", str]


def run(
    *,
    bundle: Path,
    on: Path,
    out: Path,
    classes: Classes = "labelled",
    target_fpr: float = 0.01,
    unsure: float | None = None,
    share: float = 0.5,
) -> Calibration:
    """Write a bundle with a new calibration; nothing is written before it is there.

    Args:
        bundle: the bundle; or a head file (.safetensors), which becomes one.
        on: a scores file of ``ltdpipe evaluate``, the folder of an extracted view, or a result file of
            ``ltdpipe predict`` (.csv, .jsonl).
        out: the calibrated bundle; may be ``bundle``.
        classes: "labelled": as the scores or the index state; "real": every image is; "unlabelled": nobody knows.
        target_fpr: the share of real images that may be called synthetic.
        unsure: the share of synthetic images that may be called real; None: there is no band.
        share: with "unlabelled", the share of the images that is synthetic.

    Raises:
        DataError: too few images (the message says how many are needed), images that trained the head, another head's
            scores, or a damaged file.
    """
    loaded = make(head=bundle) if bundle.suffix == ".safetensors" else read_bundle(bundle)
    logits, labels, source = _images(loaded, on)
    if classes == "real":
        labels = np.zeros(len(logits), np.int64)
    if classes == "unlabelled":
        found = calibrate_unlabelled(logits, source=source, share=share, at_least=UNLABELLED)
    elif labels is None:
        raise SettingError(f"{on} does not state which images are real; say it with --images real or unlabelled")
    else:
        found = calibrate(labels, logits, source=source, target_fpr=target_fpr, unsure=unsure)
    write_bundle(out, loaded.head, loaded.card.model_copy(update={"calibration": found}))
    return found


def _images(bundle: Bundle, on: Path) -> _Images:
    if not on.exists():
        raise DataError(f"{on} does not exist; expected a scores file, an extracted view or results of predict")
    if on.is_dir():
        return _of_features(bundle, on)
    return _of_scores(bundle, on) if on.suffix == ".parquet" else _of_results(bundle, on)


def _of_scores(bundle: Bundle, path: Path) -> _Images:
    scores = read_scores(path)
    if scores.card.head_sha256 != bundle.card.head_sha256:
        held = f"{printable(bundle.card.name)}, seed {bundle.card.seed}"
        raise DataError(
            f"{path} has the scores of another head ({printable(scores.card.head)}, seed {scores.card.seed}) than "
            f"{bundle.source} holds ({held}); evaluate the head that the bundle was made from"
        )
    if scores.card.corpus == bundle.card.provenance.get("corpus") and scores.card.view != HELD_OUT:
        raise DataError(
            f"{path} has scores of images that the head was trained on, which are too good to calibrate with; use the "
            f"scores of the images held out ({HELD_OUT}.parquet), or of another corpus"
        )
    return (
        scores.logit,
        scores.label.astype(np.int64),
        printable(f"scores of corpus {scores.card.corpus}, {scores.card.view}"),
    )


def _of_features(bundle: Bundle, directory: Path) -> _Images:
    card = bundle.card
    table = open_features(directory, card.spec, but_view=True)
    rows, source = np.arange(len(table)), printable(f"features of corpus {table.corpus}, {directory.name}")
    if table.corpus == card.provenance.get("corpus"):  # then only those that chose the best epoch, and trained nothing
        try:
            settings = TrainSettings.model_validate(card.provenance.get("train"))
        except ValidationError as error:
            raise DataError(
                f"{bundle.source} does not say which images of {table.corpus} trained its head; calibrate on another "
                "corpus"
            ) from error
        rows, source = split_rows(table, settings).validation, f"{source}, the images held out of training"
    logits = [np.empty(0)]
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            part = table.read(card.tap, blocks=card.blocks or None, rows=rows[start : start + _BATCH])
            logits.append(bundle.head(torch.from_numpy(part).float()).numpy().astype(np.float64))
    labels = table.index["label"].take(rows)
    stated = None if labels.null_count else labels.to_numpy().astype(np.int64)
    return np.concatenate(logits), stated, source


def _of_results(bundle: Bundle, path: Path) -> _Images:
    logits = []
    for row in read_rows(path, check=False):
        if row["detector"] != bundle.identity:
            raise DataError(
                f"{path} was made by detector {printable(str(row['detector']))}, {bundle.source} is {bundle.identity}; "
                "predict again with this bundle"
            )
        if row["logit"] is not None:
            logits.append(row["logit"])
    return np.array(logits, dtype=np.float64), None, printable(f"results in {path.name}")
