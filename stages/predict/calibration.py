"""Calibration: a bundle's threshold, band and probabilities, from images that its head was not trained on.

The threshold and the lower edge of the band are split-conformal quantiles: their guarantee needs no model of the
scores, only that a new image is exchangeable with the calibration images of its class. It is marginal: it holds on
average over the draw of the calibration images, and says nothing of images from elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationError
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from stages.evaluate.scores import HELD_OUT, read_scores
from stages.heads.file import score, training_of
from stages.measure.metrics import UNLABELLED, unlabelled_threshold
from stages.predict.bundle import Bundle, read_bundle, write_bundle
from stages.predict.likeness import reference_of
from stages.predict.make import open_features
from stages.predict.manifest import Calibration, Platt
from stages.predict.results import read_rows
from stages.train.data import split_rows
from storage.errors import DataError, SettingError
from storage.names import printable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Classes = Literal["labelled", "real", "unlabelled"]
# Logits (N,), labels (N,) where they are known, what the images are, and last features of some where they can be had.
_Images = tuple["NDArray[np.float64]", "NDArray[np.int64] | None", str, "NDArray[np.float16] | None"]


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
    """Write a bundle with a new calibration; nothing is written where it cannot be made.

    Args:
        bundle: the bundle.
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
        SettingError: nothing says which of the images are real.
    """
    loaded = read_bundle(bundle)
    if not on.exists():
        raise DataError(f"{on} does not exist; expected a scores file, an extracted view or results of predict")
    read = _of_features if on.is_dir() else _of_scores if on.suffix == ".parquet" else _of_results
    logits, labels, source, reference = read(loaded, on)
    if classes == "real":
        labels = np.zeros(len(logits), np.int64)
    if classes == "unlabelled":
        calibration = calibrate_unlabelled(logits, source=source, share=share)
    elif labels is None:
        raise SettingError(f"{on} does not state which images are real; say it with --images real or unlabelled")
    else:
        calibration = calibrate(labels, logits, source=source, target_fpr=target_fpr, unsure=unsure)
    write_bundle(out, loaded.head, loaded.manifest.model_copy(update={"calibration": calibration}), reference)
    return calibration


def calibrate(
    labels: NDArray[np.integer[Any]],
    logits: NDArray[np.float64],
    *,
    source: str,
    target_fpr: float,
    unsure: float | None = None,
) -> Calibration:
    """Calibrate on N images whose class is known, none of which trained the head; see :func:`run`."""
    reals, fakes = logits[labels == 0], logits[labels == 1]
    threshold = conformal_threshold(reals, target_fpr)
    low = None if unsure is None else min(conformal_lower_threshold(fakes, unsure), threshold)
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


def calibrate_unlabelled(logits: NDArray[np.float64], *, source: str, share: float) -> Calibration:
    """Set the threshold from ``logits`` (N,) of at least 100 images, a ``share`` of them synthetic, unknown which."""
    if len(logits) < UNLABELLED:
        raise DataError(
            f"{source} has {len(logits)} unlabelled images, and a threshold from them needs at least {UNLABELLED}; add "
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


def conformal_threshold(reals: NDArray[np.float64], target_fpr: float) -> float:
    """Return the least logit above which a new image like ``reals`` (n,) lies with at most this probability."""
    return float(np.sort(reals)[len(reals) - _allowed(len(reals), target_fpr, "target-fpr", "real")])


def conformal_lower_threshold(fakes: NDArray[np.float64], unsure: float) -> float:
    """Return the greatest logit up to which a new image like ``fakes`` (n,) lies with at most this probability."""
    place = _allowed(len(fakes), unsure, "unsure", "synthetic")
    return float(np.nextafter(np.sort(fakes)[place - 1], -np.inf))


def _allowed(images: int, rate: float, option: str, word: str) -> int:
    """How many of the images may lie on the wrong side, the new one counted in; a DataError where it is none."""
    allowed = math.floor((images + 1) * rate + 1e-9)
    if allowed < 1:
        needed = math.ceil(1 / rate - 1e-9) - 1
        raise DataError(
            f"{images} held-out {word} images are too few for --{option} {rate:g}: at least {needed} are needed "
            f"(1 / {rate:g} - 1); add {word} images, or allow a greater share"
        )
    return allowed


def fit_platt(reals: NDArray[np.float64], fakes: NDArray[np.float64], source: str) -> Platt:
    """Fit probabilities to logits (n,) of real and (m,) of synthetic images, both classes counting the same.

    Targets are Platt's (1 / (n + 2) for reals, (m + 1) / (m + 2) for synthetic images instead of 0 and 1): no finite
    number of images shows that a probability is 0 or 1, and the slope is finite where the classes do not overlap.

    Raises:
        DataError: the mean logit of synthetic images is not greater than that of real ones.
    """
    if fakes.mean() <= reals.mean():
        raise DataError(
            f"{source}: the mean logit is {fakes.mean():.4g} for synthetic images, {reals.mean():.4g} for real ones, "
            "expected a greater one for synthetic; check the labels, or use another head"
        )
    sizes = [len(reals), len(fakes)]
    logits = np.concatenate([reals, fakes])
    targets = np.repeat([1 / (len(reals) + 2), (len(fakes) + 1) / (len(fakes) + 2)], sizes)
    weights = np.repeat([0.5 / len(reals), 0.5 / len(fakes)], sizes)
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


def _guarantee(n_real: int, n_fake: int, target_fpr: float, unsure: float | None) -> str:
    promise = (
        f"a new real image that is exchangeable with the {n_real} real calibration images is called synthetic with "
        f"probability at most {target_fpr:g}"
    )
    rates = f"the false-positive rate is itself random: it lies {_range(n_real, target_fpr)}"
    if unsure is not None:
        promise += (
            f", and a new synthetic image that is exchangeable with the {n_fake} synthetic ones is called real with "
            f"probability at most {unsure:g}"
        )
        rates += f" (the share of synthetic images that are called real {_range(n_fake, unsure)})"
    return (
        f"{promise}. The probability is marginal: over the calibration images and the new one together. For this one "
        f"calibration {rates} in 95 % of calibrations with as many images (for logits without ties). Nothing is "
        "promised for images of another source: other cameras, other processing, generators that are not among the "
        "calibration images."
    )


def _range(images: int, rate: float) -> str:
    """The range that holds the rate of errors of 95 % of calibrations."""
    allowed = _allowed(images, rate, "", "")
    low, high = beta.ppf([0.025, 0.975], allowed, images + 1 - allowed)
    return f"between {low:.4f} and {high:.4f}"


def _of_scores(bundle: Bundle, path: Path) -> _Images:
    scores, manifest = read_scores(path), bundle.manifest
    card = scores.card
    if card.head_sha256 != manifest.head_sha256:
        raise DataError(
            f"{path} has the scores of another head ({printable(card.head)}, seed {card.seed}) than {bundle.source} "
            f"holds ({printable(manifest.name)}, seed {manifest.seed}); evaluate the head that the bundle was made from"
        )
    plan = None if manifest.tiles is None else f"tiles-{manifest.tiles}-max"
    if plan != (card.view if card.view.startswith("tiles-") else None):
        raise DataError(
            f"{path} has scores of the view {printable(card.view)}, and {bundle.source} reads images "
            f"{_reads(bundle)}; calibrate with scores of that"
        )
    if card.corpus == manifest.provenance.get("corpus") and card.view != HELD_OUT:
        raise DataError(
            f"{path} has scores of images that the head was trained on, which are too good to calibrate with; use the "
            f"scores of the images held out ({HELD_OUT}.parquet), or of another corpus"
        )
    return scores.logit, scores.label.astype(np.int64), printable(f"scores of corpus {card.corpus}, {card.view}"), None


def _reads(bundle: Bundle) -> str:
    tiles = bundle.manifest.tiles
    return "in one picture" if tiles is None else f"in up to {tiles} tiles (view tiles-{tiles}-max)"


def _of_features(bundle: Bundle, directory: Path) -> _Images:
    provenance = bundle.manifest.provenance
    if bundle.manifest.tiles is not None:
        raise DataError(
            f"{directory} holds single pictures of images, and {bundle.source} reads them {_reads(bundle)}; evaluate "
            f"the view and name its scores, or results of `ltdpipe predict`"
        )
    table = open_features(directory, bundle.manifest.spec)
    rows, source = np.arange(len(table)), printable(f"features of corpus {table.corpus}, {directory.name}")
    if table.corpus == provenance.get("corpus"):  # then only those that chose the best epoch
        try:
            settings = training_of(provenance)
        except ValidationError as error:
            raise DataError(
                f"{bundle.source} does not say which images of {table.corpus} trained its head; calibrate on another "
                "corpus"
            ) from error
        rows, source = split_rows(table, settings).validation, f"{source}, the images held out of training"
    labels = table.index["label"].take(rows)
    known = None if labels.null_count else labels.to_numpy().astype(np.int64)
    return score([bundle.head], table, rows)[0], known, source, reference_of(bundle.head, table, rows)


def _of_results(bundle: Bundle, path: Path) -> _Images:
    logits = []
    for row, _ in read_rows(path):
        detector = str(row.get("detector", "no detector")).partition("+")[0]
        if detector != bundle.identity:
            raise DataError(
                f"{path} was made by detector {printable(detector)}, {bundle.source} is {bundle.identity}; predict "
                "again with this bundle"
            )
        if row["logit"] is not None:
            logits.append(row["logit"])
    return np.array(logits, dtype=np.float64), None, printable(f"results in {path.name}"), None
