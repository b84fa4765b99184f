"""A tiny data root that lies on disk like the paper's benchmarks, to try a whole study on a small machine.

Real images are crops of the demo's photographs; every generator is one of its simulated fingerprints. Layouts, inner
names, shared reals and class folders are those of the real downloads; the pictures mean nothing.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from stages.demo.images import GENERATORS, photographs, random_crop
from storage.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Folders of the benchmarks: the sets of UFD that are tested against laion; those of GenImage with the folder inside.
UFD_LAION = ("ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10", "dalle")
GENIMAGE = {
    "Midjourney": "imagenet_midjourney",
    "stable_diffusion_v_1_4": "imagenet_ai_0419_sdv4",
    "stable_diffusion_v_1_5": "imagenet_ai_0424_sdv5",
    "ADM": "imagenet_ai_0508_adm",
    "glide": "imagenet_glide",
    "wukong": "imagenet_ai_0424_wukong",
    "VQDM": "imagenet_ai_0419_vqdm",
    "BigGAN": "imagenet_ai_0419_biggan",
}
DRCT = (
    *("ldm-text2im-large-256", "stable-diffusion-v1-4", "stable-diffusion-v1-5", "stable-diffusion-2-1"),
    *("stable-diffusion-xl-base-1.0", "stable-diffusion-xl-refiner-1.0", "sd-turbo", "sdxl-turbo"),
    *("lcm-lora-sdv1-5", "lcm-lora-sdxl", "sd-controlnet-canny", "sd21-controlnet-canny"),
    *("controlnet-canny-sdxl-1.0", "stable-diffusion-inpainting", "stable-diffusion-2-inpainting"),
    "stable-diffusion-xl-1.0-inpainting-0.1",
)


class _Leaf(NamedTuple):
    """A folder of images of one class; ``training`` ones get more of them."""

    folder: str
    real: bool
    suffix: str = ".png"
    training: bool = False


def run(*, root: Path, test_images: int, training_images: int) -> int:
    """Write the data root; the same numbers give the same bytes.

    Args:
        root: folder to write to; ``profiles/paper.yaml`` finds its corpora below it.
        test_images: images a leaf of the test sets.
        training_images: images a leaf of the training sets.

    Returns:
        The number of images written.
    """
    halves = {True: photographs("left"), False: photographs("right")}
    fingerprints = cycle(GENERATORS.values())
    written = 0
    for leaf in _leaves():
        folder = root / leaf.folder
        draw = np.random.default_rng(list(leaf.folder.encode()))
        fingerprint = None if leaf.real else next(fingerprints)
        for number in range(training_images if leaf.training else test_images):
            crop = random_crop(halves[leaf.training], draw)
            image = crop if fingerprint is None else fingerprint(crop)
            path = folder / f"{number:012d}{leaf.suffix}"
            with atomic_path(path, sync_folder=False) as partial:
                image.save(partial, Image.registered_extensions()[leaf.suffix.lower()])
            written += 1
    return written


def _leaves() -> Iterator[_Leaf]:
    nested = [
        f"{name}/{category}"
        for name in ("progan", "stylegan", "stylegan2", "cyclegan")
        for category in ("chair", "horse")
    ]
    for category in ("chair", "tvmonitor", "horse"):
        for kind in ("0_real", "1_fake"):
            yield _Leaf(f"forensynths/train/{category}/{kind}", kind == "0_real", training=True)
    for kind in ("0_real", "1_fake"):
        for name in (*nested, "biggan", "stargan", "gaugan", "deepfake", "seeingdark"):
            yield _Leaf(f"ufd/test/{name}/{kind}", kind == "0_real")
    for pool in ("imagenet", "laion"):
        yield _Leaf(f"ufd/diffusion_datasets/{pool}/0_real", real=True, suffix=".jpg")
    for name in ("guided", *UFD_LAION):
        yield _Leaf(f"ufd/diffusion_datasets/{name}/1_fake", real=False)
    for name, inner in GENIMAGE.items():
        yield _Leaf(f"genimage/{name}/{inner}/val/nature", real=True, suffix=".JPEG")
        yield _Leaf(f"genimage/{name}/{inner}/val/ai", real=False)
    for name in DRCT:
        yield _Leaf(f"drct-2m/images/{name}/val2017", real=False)
    yield _Leaf("drct-2m/images/stable-diffusion-v1-4/train2017", real=False, training=True)
    yield _Leaf("coco/val2017", real=True, suffix=".jpg")
    yield _Leaf("coco/train2017", real=True, suffix=".jpg", training=True)
