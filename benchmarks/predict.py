"""Predicting: memory over many images, the way from the command to the answer for one, and the rate beside extraction.

``python -m benchmarks.predict [IMAGES]``; 20,000 small images by default, 0 for the rest alone. The memory is measured
with a head that reads the first block alone, so that the backbone stops there: what holds memory is the same, and it
takes minutes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from stages.extract.backbone import feature_spec, load_backbone
from stages.extract.read_image import ReadSpec
from stages.extract.run import run as extract
from stages.extract.settings import ExtractSettings
from stages.extract.views import Recipe
from stages.heads.file import build_head
from stages.heads.settings import HeadSettings, LinearSettings, LtdSettings
from stages.predict.detector import Detector
from stages.predict.inputs import find_images
from stages.predict.make import run as make_bundle
from stages.predict.results import columns, open_results
from stages.predict.run import predictions
from stages.reporter import SilentReporter
from stages.scan.run import run as scan
from storage.headfile import save_head
from storage.sources import Sources
from storage.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.predict.results import Prediction

PROJECT = Path(__file__).resolve().parents[1]
_TORCH = "import time; start = time.perf_counter(); import torch; print(time.perf_counter() - start)"
_STEPS = """
import time; start = time.perf_counter()
from stages.predict.detector import Detector, read_any
imports = time.perf_counter(); import sys
detector = Detector.load(sys.argv[1], weights=sys.argv[2])
load = time.perf_counter()
image = read_any(sys.argv[3], detector.read_spec())
decode = time.perf_counter()
print(next(detector.predictions([image])).verdict, file=sys.stderr)
done = time.perf_counter()
print(imports - start, load - imports, decode - load, done - decode)
"""


def main() -> None:
    """Print the figures."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shallow, deep = (bundle_of(folder, settings) for settings in (LinearSettings(block=0), LtdSettings()))
        if images:
            memory(folder, shallow, images)
        beside_extraction(folder, deep)
        one_image(folder, deep)


def bundle_of(folder: Path, settings: HeadSettings) -> Path:
    """Write a bundle of an untrained head."""
    backbone = load_backbone("demo-vit", weights="default", precision="fp32")
    view = View("clean")
    job = ReadSpec(Sources.of("/"), (view,), Recipe("crop224-pad", backbone.card.size))
    spec = feature_spec(backbone, ExtractSettings(backbone="demo-vit"), job.recipe, view)
    torch.manual_seed(0)
    head = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
    path = folder / f"{settings.type}.safetensors"
    metadata = {
        "head": settings.type,
        "seed": 0,
        "settings": settings.model_dump(mode="json"),
        "facts": {},
        "parameters": 0,
        "feature_spec": spec.to_json(),
        "feature_key": spec.key,
        "imported": {"format": "untrained, to measure with", "file": "none", "sha256": "none"},
    }
    save_head(path, head.state_dict(), metadata)
    make_bundle(head=path, out=path.with_suffix(".ltd"))
    return path.with_suffix(".ltd")


def memory(folder: Path, bundle: Path, count: int) -> None:
    """Peak memory after 1,000 images and at the end, every twentieth image broken."""
    images = folder / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        path = images / f"{number:06}.jpg"
        if number % 20 == 7:
            path.write_bytes(b"broken")
        else:
            Image.fromarray(draw.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)
    started = time.perf_counter()
    with open_results(folder / "out.csv", columns(check=False), detector="measured") as (write, _):
        peaks = []
        for number, row in enumerate(results(bundle, images), 1):
            write(row)
            if number == 1:
                first = time.perf_counter() - started
            if number in {min(1000, count), count}:
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    wall = time.perf_counter() - started
    print(f"{count} images, 5 % broken: first result after {first:.1f} s, {count / wall:.0f} images/s")
    grown = peaks[-1] - peaks[0]
    print(f"peak memory: {peaks[0]:.0f} MB after 1,000 images, {peaks[-1]:.0f} MB at the end: {grown:+.1f} MB")


def beside_extraction(folder: Path, bundle: Path, *, count: int = 128, rounds: int = 3) -> None:
    """Images per second of predict and of extract in turn, on the same photographs and blocks, in one process."""
    images, detector = folder / "photographs" / "real", Detector.load(bundle)
    images.mkdir(parents=True)
    draw = np.random.default_rng(1)
    for number in range(count):
        small = Image.fromarray(draw.integers(0, 255, (30, 40, 3), dtype=np.uint8))
        small.resize((800, 600)).save(images / f"{number:03}.jpg", quality=90)
    manifest, _ = scan(corpus="photographs", root=images.parent, layout="folder")
    read = detector.head.reads.blocks
    settings = ExtractSettings(backbone="demo-vit", taps=("cls",), blocks=f"{read[0]}-{read[-1]}")
    rates: dict[str, list[float]] = {"predict": [], "extract": []}
    for number in range(rounds):
        started = time.perf_counter()
        found = [str(images)], sys.stdin.buffer, Counter[str]()
        assert len(list(predictions(detector, find_images(*found)))) == count
        predicted = time.perf_counter()
        extract(
            corpus="photographs", root=images.parent, manifest=manifest, settings=settings, geometry="crop224-pad",
            store=folder / f"store-{number}", out=folder / f"features-{number}", reporter=SilentReporter(),
        )  # fmt: skip
        rates["predict"].append(count / (predicted - started))
        rates["extract"].append(count / (time.perf_counter() - predicted))
    predict, extraction = (float(np.median(rates[name])) for name in ("predict", "extract"))
    print(
        f"{count} photographs: predict {predict:.1f}, extract {extraction:.1f} images/s: {predict / extraction:.2f} x"
    )


def results(bundle: Path, images: Path) -> Iterator[Prediction]:
    """Yield the results of a folder."""
    detector = Detector.load(bundle)
    yield from predictions(detector, find_images([str(images)], sys.stdin.buffer, Counter()))


def one_image(folder: Path, bundle: Path) -> None:
    """Seconds of the steps from start to answer, in a fresh process, with the backbone's weights from a file."""
    weights = folder / "weights.safetensors"
    save_file(load_backbone("demo-vit", weights="default", precision="fp32").tower.module.state_dict(), weights)
    image = folder / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", _STEPS, str(bundle), str(weights), str(image)]
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        runs.append([float(value) for value in done.stdout.split()])
    imports, load, decode, forward = np.median(runs, axis=0)
    command = [sys.executable, "-c", _TORCH]
    bare = np.median([float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)])
    share = imports / (imports + load + decode + forward)
    print(
        f"one 2000 x 1500 image: imports {imports:.2f} s ({share:.0%}), load {load:.2f}, decode {decode:.2f}, ", end=""
    )
    print(f"forward {forward:.2f}; importing torch alone {bare:.2f} s")


if __name__ == "__main__":
    main()
