"""Extraction against the loop that one would write by hand, in one process, decoding included.

The plain loop: Pillow decode and centre crop, open_clip's own forward with a hook on every block, batch 8, one
``torch.save`` at the end. Both read the same JPEG files with the same weights and the same number of torch threads;
rounds are interleaved, and the best of each is compared, since other load on the machine only ever adds time.

    python -m benchmarks.extract [--images 96] [--large-images 6] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop

from stages.extract.backbone import Backbone, load_backbone
from stages.extract.bench import listed, make_photographs
from stages.extract.run import run
from stages.extract.runtime import Runtime, cores
from stages.extract.settings import ExtractSettings
from storage.features import FeatureTable

PLAIN_BATCH = 8


class Quiet:
    """A reporter that says nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""

    warn = note

    @contextmanager
    def progress(self, _what: str, _total: int | None, _unit: str):
        """Count nothing."""
        yield self

    def advance(self, count: int, *, failed: int = 0, waiting: float = 0.0) -> None:
        """Count nothing."""


@torch.inference_mode()
def plain_loop(backbone: Backbone, folder: Path, out: Path) -> torch.Tensor:
    """Return the class tokens (N, L, D) that the hand-written loop gets, and save them with the embeddings."""
    model, size = backbone.tower.module, backbone.card.size
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.card.mean, backbone.card.std))
    caught: list[torch.Tensor] = []
    hooks = [
        b.register_forward_hook(lambda _m, _i, tokens: caught.append(tokens[:, 0].clone()))
        for b in backbone.tower.blocks
    ]
    cls, embeddings = [], []
    files = sorted(folder.iterdir())
    for start in range(0, len(files), PLAIN_BATCH):
        images = []
        for file in files[start : start + PLAIN_BATCH]:
            with Image.open(file) as image:
                pixels = np.array(center_crop(image.convert("RGB"), [size, size]))
            images.append((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)
        caught.clear()
        embeddings.append(model(torch.stack(images)))
        cls.append(torch.stack(caught, dim=1))
    for hook in hooks:
        hook.remove()
    found = torch.cat(cls)
    torch.save({"cls": found.half(), "embedding": torch.cat(embeddings).half()}, out)
    return found


def compare(name: str, count: int, rounds: int) -> None:
    """Print images a second of both ways and their ratio."""
    settings = ExtractSettings(backbone=name, weights="random:0")
    backbone = load_backbone(name, weights="random:0", precision="fp32")
    best = {"plain loop": float("inf"), "ltdpipe": float("inf")}
    with tempfile.TemporaryDirectory() as place:
        images = Path(place, "images")
        make_photographs(images, count)
        for number in range(rounds):
            started = time.perf_counter()
            expected = plain_loop(backbone, images, Path(place, "plain.pt"))
            best["plain loop"] = min(best["plain loop"], time.perf_counter() - started)
            summary = run(
                corpus="bench",
                root=images,
                manifest=listed(images),
                settings=settings,
                geometry="crop224-pad",
                store=Path(place, f"store-{number}"),
                out=Path(place, f"out-{number}"),
                reporter=Quiet(),
                runtime=Runtime(),
            )
            best["ltdpipe"] = min(best["ltdpipe"], summary.timing.wall)
        found = FeatureTable.open(Path(place, f"out-{rounds - 1}", "clean")).read("cls")
    error = float((torch.from_numpy(found).float() - expected).abs().max() / expected.abs().max())
    for way, seconds in best.items():
        print(f"{name:14} {way:10} {count / seconds:7.2f} images/s")
    ratio = best["plain loop"] / best["ltdpipe"]
    print(
        f"{name:14} ratio {ratio:.2f} ({count} images, best of {rounds}; differences up to {error:.0e} of the largest)"
    )


def main() -> None:
    """Compare both backbones."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--large-images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("LTDPIPE_STORE", tempfile.mkdtemp())
    print(f"{cores()} cores, {torch.get_num_threads()} torch threads, load {os.getloadavg()[0]:.1f}")
    compare("demo-vit", options.images, options.rounds)
    compare("clip-vit-l-14", options.large_images, options.rounds)


if __name__ == "__main__":
    main()
