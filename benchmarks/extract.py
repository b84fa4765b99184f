"""`ltdpipe extract` against the loop that one would write by hand, decoding included.

The plain loop: Pillow decode and centre crop, open_clip's own forward with a hook on every block, batch 8, one
``torch.save`` at the end. Both read the same JPEG files with the same weights and as many torch threads, each in a
process of its own (the plain one imports nothing of this project), in turns; the fastest of each is compared, since
other load on the machine only ever adds time. Two rates: of the whole command (start, imports, building the model,
scanning the folder), and of the steady loop from the first file to the last feature on disk, start of the loader
processes included.

    python -m benchmarks.extract [--images 1000] [--large-images 32] [--rounds 2]
"""

# ruff: noqa: PLC0415 - the plain loop imports nothing of this project, and this project none of its libraries
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN_BATCH = 8


def plain_loop(name: str, weights: Path, images: Path, out: Path) -> None:
    """Save class tokens (N, L, D) and embeddings as the hand-written loop gets them; print its seconds."""
    import numpy as np
    import open_clip
    import torch
    from open_clip.transformer import QuickGELU, VisionTransformer
    from PIL import Image
    from torchvision.transforms.functional import center_crop

    if name == "demo-vit":
        model = VisionTransformer(224, 16, 128, 24, 4, 4.0, output_dim=64, act_layer=QuickGELU)
    else:
        model = open_clip.create_model("ViT-L-14-quickgelu").visual
    model.load_state_dict(torch.load(weights))
    model.eval()
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    caught: list[torch.Tensor] = []
    for block in model.transformer.resblocks:
        block.register_forward_hook(lambda _m, _i, tokens: caught.append(tokens[:, 0].clone()))
    cls, embeddings = [], []
    files = sorted(images.iterdir())
    started = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(files), PLAIN_BATCH):
            batch = []
            for file in files[start : start + PLAIN_BATCH]:
                with Image.open(file) as image:
                    pixels = np.array(center_crop(image.convert("RGB"), [224, 224]))
                batch.append((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)
            caught.clear()
            embeddings.append(model(torch.stack(batch)))
            cls.append(torch.stack(caught, dim=1))
    torch.save({"cls": torch.cat(cls).half(), "embedding": torch.cat(embeddings).half()}, out)
    print(json.dumps({"timing": {"wall": time.perf_counter() - started}}))


def timed(command: list[str], variables: dict[str, str]) -> tuple[float, float]:
    """Return seconds of the whole command, and of its loop as it tells them."""
    started = time.perf_counter()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return seconds, json.loads(done.stdout)["timing"]["wall"]


def compare(name: str, count: int, rounds: int) -> None:
    """Print images a second of both ways and their ratios."""
    import torch

    from stages.extract.backbone import load_backbone
    from stages.extract.doctor import make_photographs
    from storage.features import FeatureTable

    variables = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}  # this project sets it
    best: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as place:
        images, weights, saved = (Path(place, each) for each in ("images", "weights.pt", "plain.pt"))
        make_photographs(images, count)
        torch.save(load_backbone(name, weights="random:0", precision="fp32").tower.module.state_dict(), weights)
        for number in range(rounds):
            out = Path(place, f"out-{number}")
            ways = {
                "plain loop": [sys.executable, __file__, "--plain", name, str(weights), str(images), str(saved)],
                "ltdpipe": [
                    *(str(Path(sys.executable).with_name("ltdpipe")), "extract", str(images), "--out", str(out)),
                    *("--backbone", name, "--weights", "random:0", "--json"),
                ],
            }
            for way, arguments in ways.items():
                store = {"LTDPIPE_STORE": str(Path(place, f"store-{number}"))}
                seconds = timed(arguments, variables | store)
                for part, spent in zip(("whole", "steady"), seconds, strict=True):
                    best[part, way] = min(spent, best.get((part, way), spent))
        found = torch.from_numpy(FeatureTable.open(out / "clean").read("cls")).float()
        expected = torch.load(saved)["cls"].float()
    error = float((found - expected).abs().max() / expected.abs().max())
    print(f"{name}: {count} JPEG files, best of {rounds}; features differ by up to {error:.0e} of the largest")
    for part in ("whole", "steady"):
        plain, ours = best[part, "plain loop"], best[part, "ltdpipe"]
        print(f"  {part:6}: {count / ours:.2f} images/s, plain loop {count / plain:.2f}, ratio {plain / ours:.2f}")


def main() -> None:
    """Compare both backbones."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--large-images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plain", nargs=4, metavar=("BACKBONE", "WEIGHTS", "IMAGES", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        name, *paths = options.plain
        plain_loop(name, *map(Path, paths))
        return
    for name, count in (("demo-vit", options.images), ("clip-vit-l-14", options.large_images)):
        if count:
            compare(name, count, options.rounds)


if __name__ == "__main__":
    main()
