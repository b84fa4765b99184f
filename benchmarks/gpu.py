"""Every step from JPEG files to features, verdicts and a trained head on a CUDA GPU, beside the limit of that step.

Prints the table for docs/benchmarks.md: rate, the limit that was measured on the same card in the same run (its own
matrix products, its own copies), and the share of it that is reached. Nothing has to be downloaded: the weights are
random. About ten minutes. Without a GPU it says so; ``--device cpu`` runs the same steps there, to try the script.

    python -m benchmarks.gpu [--backbone clip-vit-l-14] [--images 4096] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from stages.extract.backbone import feature_spec, load_backbone
from stages.extract.doctor import make_photographs
from stages.extract.loaders import open_loaders
from stages.extract.read_image import ReadSpec, Task
from stages.extract.settings import ExtractSettings, auto_loaders
from stages.extract.views import Recipe
from stages.heads.file import build_head
from stages.heads.settings import LtdSettings
from storage.sources import Sources
from storage.views import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.extract.backbone import Backbone

TAPS = ("cls", "embedding")
PICTURES = 64  # different ones; each is copied as often as it takes
SIDE = 512


def main() -> None:
    """Print one row per step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="clip-vit-l-14")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA GPU here: nothing measured (--device cpu runs the same steps on the CPU)")
        return
    device = torch.device(options.device)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{card}, torch {torch.__version__}, {os.cpu_count()} cores, {options.backbone} with random weights\n")
    print("| step | measured | limit of this machine | share |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photographs(folder / "images", options.images)
        decoding(folder / "images", device)
        forward = encoding(options.backbone, device)
        extraction(folder, options.backbone, options.images, forward)
    training(device)


def row(step: str, measured: float, unit: str, limit: float | None = None, of: str = "") -> None:
    """Print one row; the limit is of the same unit."""
    if limit is None:
        print(f"| {step} | {measured:,.4g} {unit} | | |", flush=True)
    else:
        print(f"| {step} | {measured:,.4g} {unit} | {limit:,.4g} {unit} ({of}) | {measured / limit:.0%} |", flush=True)


def seconds(program: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    """Return the mean seconds of a program, after two rounds that warm up."""
    for _ in range(2):
        program()
    _wait(device)
    started = time.perf_counter()
    for _ in range(rounds):
        program()
    _wait(device)
    return (time.perf_counter() - started) / rounds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def photographs(folder: Path, count: int) -> None:
    """Fill a folder with JPEG files of 512 x 512 pixels; every one is a file of its own."""
    make_photographs(folder, min(count, PICTURES))
    for number, path in enumerate(sorted(folder.iterdir())):
        with Image.open(path) as image:
            image.resize((SIDE, SIDE)).save(path, quality=90)
        for copy in range(number + PICTURES, count, PICTURES):
            (folder / f"{copy:05d}.jpg").write_bytes(path.read_bytes())


def decoding(folder: Path, device: torch.device) -> None:
    """Images a second of all loader processes, against one core times their number."""
    paths = sorted(path.name for path in folder.iterdir())
    spec = ReadSpec(Sources.of(folder), (View("clean"),), Recipe("crop224-pad", 224))

    def read(count: int) -> float:
        with open_loaders(spec, count, 512) as reader:
            started = time.perf_counter()
            for _ in reader(Task(path, (0,)) for path in paths):
                pass
            return len(paths) / (time.perf_counter() - started)

    loaders = auto_loaders(device.type)
    row(
        f"decode JPEG {SIDE}², {loaders} loaders",
        read(loaders),
        "images/s",
        read(0) * max(loaders, 1),
        "one core x loaders",
    )


def encoding(name: str, device: torch.device) -> float:
    """Copies, the forward pass and the taps of a batch; return images a second of the forward pass."""
    gemm = limits(device)
    backbone = load_backbone(name, weights="random:0", precision="auto", device=str(device))
    spec_blocks = range(len(backbone.tower.blocks))
    size, batch = backbone.card.size, backbone.auto_batch
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)

    def taps(backbone: Backbone = backbone) -> dict[str, torch.Tensor]:
        return backbone.taps(pixels, TAPS, spec_blocks)

    with FlopCounterMode(display=False) as counter:
        backbone.taps(pixels[:2], TAPS, spec_blocks)  # few enough for one thread, the only one that is counted
    flops = counter.get_total_flops() / 2
    pinned = torch.from_numpy(pixels)
    pinned = pinned.pin_memory() if device.type == "cuda" else pinned
    row("pixels to the device", pinned.nbytes / seconds(lambda: pinned.to(device, copy=True), device) / 1e9, "GB/s")
    eager = batch / seconds(taps, device)
    row(
        "forward with taps, eager",
        eager,
        "images/s",
        gemm / flops,
        f"{flops / 1e9:.0f} GFLOP an image at the measured rate",
    )
    if device.type == "cuda":
        compiled = load_backbone(name, weights="random:0", precision="auto", device=str(device), compiled=True)
        row(
            "forward with taps, compiled",
            batch / seconds(lambda: taps(compiled), device),
            "images/s",
            gemm / flops,
            "likewise",
        )
    read_spec = ReadSpec(Sources.of("/"), (View("clean"),), Recipe("crop224-pad", size))
    spec = feature_spec(backbone, ExtractSettings(backbone=name, taps=TAPS), read_spec.recipe, View("clean"))

    def extracted() -> None:  # as extraction does: rounded and copied behind the next batch
        pending = deque([backbone.submit(pixels, spec)])
        for _ in range(3):
            pending.append(backbone.submit(pixels, spec))
            while len(pending) > backbone.in_flight:
                pending.popleft()()
        for features in pending:
            features()

    rate = 4 * batch / seconds(extracted, device, 3)
    row("forward, rounded and copied to the host", rate, "images/s", eager, "eager")
    return eager


def limits(device: torch.device) -> float:
    """Return FLOP a second of large matrix products; print it and the rate of copies."""
    kind = torch.float16 if device.type == "cuda" else torch.float32
    side = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    gemm = 2 * side**3 / seconds(lambda: left @ right, device)
    block = torch.empty(1 << (30 if device.type == "cuda" else 26), dtype=torch.uint8, device=device)
    copies = 2 * block.nbytes / seconds(block.clone, device) / 1e9
    row(f"matrix products {side}³, {str(kind).removeprefix('torch.')}", gemm / 1e12, "TFLOP/s")
    row("copies on the device, read and written", copies, "GB/s")
    return gemm


def extraction(folder: Path, backbone: str, images: int, forward: float) -> None:
    """The whole `ltdpipe extract` of a folder, its steady loop, and the same again with nothing to do."""
    program = Path(sys.executable).with_name("ltdpipe")
    settings = ["--backbone", backbone, "--weights", "random:0", "--json", "--out", str(folder / "features")]
    variables = os.environ | {"LTDPIPE_STORE": str(folder / "store")}
    for step in ("whole extract, start included", "the same again, nothing to do"):
        started = time.perf_counter()
        done = subprocess.run(
            [str(program), "extract", str(folder / "images"), *settings],
            env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr)
        if step.startswith("whole"):
            steady = images / json.loads(done.stdout)["timing"]["wall"]
            row("extract, first file to last shard on disk", steady, "images/s", forward, "forward, eager")
        row(step, images / (time.perf_counter() - started), "images/s", forward, "forward, eager")


def training(device: torch.device) -> None:
    """A training step and an evaluation of the LTD head at D = 1,024, batch 256, features on the device."""
    torch.manual_seed(0)
    head = build_head(LtdSettings(), blocks=24, width=1024, embedding=768).to(device)
    optimizer = torch.optim.AdamW(head.parameter_groups(1e-4), weight_decay=0, fused=True)
    features = torch.randn(256, *head.feature_shape, device=device)
    labels = torch.randint(0, 2, (256,), device=device).float()

    def step() -> None:
        torch.autograd.backward(head.loss(features, labels))
        optimizer.step()
        optimizer.zero_grad()

    head.train()
    row("training step of ltd, D 1,024, batch 256", 256 / seconds(step, device), "images/s")
    head.eval()
    with torch.inference_mode():
        row("evaluation of ltd, likewise", 256 / seconds(lambda: head(features), device), "images/s")


if __name__ == "__main__":
    main()
