"""What a detector of whole pictures finds that the crop of the middle does not see.

Pictures are mosaics of nine crops of the demo; fakes have the trace of a generator in one corner crop. A head that is
trained on single crops scores them by their middle, and by the greatest and the mean logit of nine tiles. Prints the
AUC of each, and in how many fakes the hottest tile is the one with the trace.

python -m benchmarks.tiles [--generator grid] [--images 20] [--training 300]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.aligned import TRAIN, features, write_images
from stages.demo.images import GENERATORS, photographs, random_crop
from stages.heads.settings import LtdSettings
from stages.predict.detector import Detector
from stages.predict.make import run as make_bundle
from stages.reporter import SilentReporter
from stages.train.run import HeadToTrain
from stages.train.run import run as train

SIDE = 224


def mosaic(draw: np.random.Generator, generator: str | None, corner: tuple[int, int]) -> Image.Image:
    """Return nine crops in one picture; that at ``corner`` (left, top) with the trace of a generator, if any."""
    picture, halves = Image.new("RGB", (3 * SIDE, 3 * SIDE)), photographs("right")
    for left in range(0, 3 * SIDE, SIDE):
        for top in range(0, 3 * SIDE, SIDE):
            crop = random_crop(halves, draw)
            crop = GENERATORS[generator](crop) if generator and (left, top) == corner else crop
            picture.paste(crop.crop((0, 0, SIDE, SIDE)), (left, top))
    return picture


def main() -> None:
    """Train a head, score the mosaics, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", choices=GENERATORS, default="grid")
    parser.add_argument("--images", type=int, default=20, help="Of each class.")
    parser.add_argument("--training", type=int, default=300, help="Of each class.")
    options = parser.parse_args()
    draw, count = np.random.default_rng(0), options.images
    corners = [(2 * SIDE * (at % 2), 2 * SIDE * (at // 2 % 2)) for at in range(count)]
    pictures = [mosaic(draw, kind, corner) for kind in (None, options.generator) for corner in corners]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LTDPIPE_STORE"] = f"{folder}/store"
        root = Path(folder)
        formats = dict.fromkeys(("real", "fake"), ("png",))
        write_images(
            root / "train", formats, half="left", generators=[options.generator], count=options.training, seed=0
        )
        view, head = features(root, "train", ("clean",)) / "clean", root / "ltd.safetensors"
        heads = [HeadToTrain(name="ltd", settings=LtdSettings(selection="fixed:11"), seed=0, out=head)]
        train(views=[view], validation_view=view, heads=heads, settings=TRAIN, reporter=SilentReporter())
        found = {}
        for plan in ("clean", "tiles:9"):
            make_bundle(head=head, out=root / "detector.ltd", plan=plan)
            found[plan] = Detector.load(root / "detector.ltd").score(pictures)
    labels, tiled = [0] * count + [1] * count, found["tiles:9"]
    print(f"AUC by the middle crop   {roc_auc_score(labels, [one.logit for one in found['clean']]):.3f}")
    print(f"AUC by the maximum       {roc_auc_score(labels, [one.logit for one in tiled]):.3f}")
    print(f"AUC by the mean          {roc_auc_score(labels, [one.mean_logit for one in tiled]):.3f}")
    right = sum(one.hottest == f"{corner[0]},{corner[1]}" for one, corner in zip(tiled[count:], corners, strict=True))
    print(f"hottest tile right       {right} of {count}")


if __name__ == "__main__":
    main()
