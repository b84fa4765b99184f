"""What a bias of file formats does to a head, and what aligned views do about it.

Training images are crops of the demo with its generators in turn; reals are JPEG files and fakes PNG files: the bias.
Heads are trained on the view clean (the bias as it is) and on the view align, and, to see what alignment costs, on the
same pictures without a bias. All are tested on other pictures in four pairings of formats. Prints AUC, mean and range
over the seeds.

python -m benchmarks.aligned [--seeds 5] [--first-seed 0] [--generators nearest ...] [--qualities 40 70] [--images 300]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import roc_auc_score

from stages.demo.images import GENERATORS, photographs, random_crop
from stages.extract.run import run as extract
from stages.extract.settings import ExtractSettings
from stages.heads.file import TrainedHead, score
from stages.heads.settings import LinearSettings, LtdSettings, TrainSettings
from stages.reporter import SilentReporter
from stages.scan.run import run as scan
from stages.train.run import HeadToTrain
from stages.train.run import run as train
from storage.features import FeatureTable

if TYPE_CHECKING:
    from collections.abc import Sequence

PAIRINGS = {
    "as trained": ("jpeg", "png"),
    "swapped": ("png", "jpeg"),
    "both JPEG": ("jpeg",) * 2,
    "both PNG": ("png",) * 2,
}
# Corpus of training -> the formats of reals and fakes.
TRAINED = {"biased": ("jpeg", "png"), "png": ("png", "png")}
HEADS = {"linear": LinearSettings(), "ltd": LtdSettings(selection="fixed:11")}
TRAIN = TrainSettings(lr=1e-3, epochs=40, batch=64)


def write_images(
    folder: Path,
    formats: dict[str, tuple[str, ...]],
    *,
    half: str,
    generators: Sequence[str],
    count: int,
    seed: int,
    qualities: tuple[int, int] = (75, 95),
) -> None:
    """Write ``count`` crops of each class in each of its formats, as ``folder/<class>/<format>/<number>``."""
    halves = photographs(half)
    draw = np.random.default_rng([seed, half == "left"])
    for kind, wanted in formats.items():
        for number in range(count):
            crop = random_crop(halves, draw)
            crop = crop if kind == "real" else GENERATORS[generators[number % len(generators)]](crop)
            quality = int(draw.integers(*qualities, endpoint=True))
            for form in wanted:
                (folder / kind / form).mkdir(parents=True, exist_ok=True)
                options = {"quality": quality} if form == "jpeg" else {"compress_level": 1}
                crop.save(folder / kind / form / f"{number:05d}.{form}", **options)


def features(folder: Path, name: str, views: tuple[str, ...]) -> Path:
    """Extract a folder of images; return the folder of its views."""
    manifest, _ = scan(corpus=name, root=folder / name, layout="folder")
    extract(
        corpus=name, root=folder / name, manifest=manifest, settings=ExtractSettings(backbone="demo-vit"),
        geometry="crop224-pad", views=views, store=folder / "store", out=folder / "features" / name,
        reporter=SilentReporter(),
    )  # fmt: skip
    return folder / "features" / name


def one_seed(
    folder: Path, generators: Sequence[str], qualities: tuple[int, int], count: int, seed: int
) -> dict[tuple[str, str, str], float]:
    """Return (head, view it was trained on, pairing) -> AUC."""
    made: dict[str, Any] = {"generators": generators, "seed": seed, "qualities": qualities}
    write_images(
        folder / "test", dict.fromkeys(("real", "fake"), ("jpeg", "png")), half="right", count=count // 2, **made
    )
    test = FeatureTable.open(features(folder, "test", ("clean",)) / "clean")
    paths = np.array(test.index["path"].to_pylist())
    label = test.index["label"].to_numpy()
    found = {}
    for name, (real, fake) in TRAINED.items():
        write_images(folder / name, {"real": (real,), "fake": (fake,)}, half="left", count=count, **made)
        views = ("clean", "align") if name == "biased" else ("clean",)
        extracted = features(folder, name, views)
        for view in views:
            heads = [
                HeadToTrain(name=head, settings=settings, seed=seed, out=folder / name / view / f"{head}.safetensors")
                for head, settings in HEADS.items()
            ]
            directory = extracted / view
            train(views=[directory], validation_view=directory, heads=heads, settings=TRAIN, reporter=SilentReporter())
            logits = score([TrainedHead.load(head.out).module for head in heads], test, np.arange(len(test)))
            for pairing, formats in PAIRINGS.items():
                chosen = np.array([f"/{formats[kind]}/" in path for path, kind in zip(paths, label, strict=True)])
                for head, own in zip(HEADS, logits, strict=True):
                    found[head, f"{name}, {view}", pairing] = float(roc_auc_score(label[chosen], own[chosen]))
    return found


def main() -> None:
    """Run all seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--generators", nargs="+", choices=GENERATORS, default=list(GENERATORS), metavar="NAME")
    parser.add_argument("--qualities", type=int, nargs=2, default=(40, 70), help="Of JPEG files, from and to.")
    parser.add_argument("--images", type=int, default=300, help="Of each class, to train on; half as many test.")
    options = parser.parse_args()
    results = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LTDPIPE_STORE"] = f"{folder}/store"
            results.append(one_seed(Path(folder), options.generators, options.qualities, options.images, seed))
    print(f"{'head':<8}{'trained on':<18}" + "".join(f"{pairing:>24}" for pairing in PAIRINGS))
    for head, trained in dict.fromkeys(key[:2] for key in results[0]):
        cells = []
        for pairing in PAIRINGS:
            values = [result[head, trained, pairing] for result in results]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f}..{max(values):.3f})")
        print(f"{head:<8}{trained:<18}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
