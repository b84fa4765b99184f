"""Features of one fixed picture, kept: an edit that changes them needs a new EXTRACTOR_VERSION, or stale shards mix."""

import numpy as np
import pytest
from PIL import Image

from stages.extract.backbone import EXTRACTOR_VERSION, load_backbone
from stages.extract.views import AUGMENTATION_VERSION, Recipe, apply_view
from storage.views import expand_views

GOLDEN_VERSION, GOLDEN_VIEWS_VERSION = 1, 1
CHOSEN = {
    "cls": [(0, 0), (11, 5), (23, 127)],
    "ln2_cls": [(0, 1), (11, 7), (23, 64)],
    "embedding": [(0,), (31,), (63,)],
}
GOLDEN = {
    "cls": [0.23268, 1.42282, -5.04531],
    "ln2_cls": [1.94837, 0.6176, -2.20502],
    "embedding": [-0.20747, 0.51632, 1.31508],
}
# Mean grey level of each view, times the position: moves when a pixel moves.
GOLDEN_VIEWS = {
    "clean": 64.6313,
    "train-0": 63.0828,
    "train-1": 61.0152,
    "train-2": 63.508,
    "val": 63.3632,
    "blur-1.5": 64.4489,
    "scale-0.6": 36.215,
    "noise-5": 64.6325,
    "tencrop-0": 59.6096,
}


def fixed_picture():
    rows, columns = np.mgrid[0:280, 0:300]
    channels = [rows * 7 % 256, columns * 5 % 256, (rows * columns) // 97 % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def fingerprint(image):
    pixels = np.asarray(image, dtype=np.float64)
    return float((pixels * np.linspace(0, 1, pixels.size).reshape(pixels.shape)).mean())


def test_features_of_the_fixed_picture():
    backbone = load_backbone("demo-vit", weights="default", precision="fp32", device="cpu")
    (clean,) = expand_views(["clean"])
    pixels = np.array(apply_view(fixed_picture(), clean, Recipe("crop224-pad", 224), "golden.png"))[None]
    taps = backbone.taps(pixels, tuple(CHOSEN), range(24))
    found = {
        tap: [
            float(taps[tap][place[0], 0, place[1]] if len(place) == 2 else taps[tap][0, place[0]]) for place in places
        ]
        for tap, places in CHOSEN.items()
    }
    assert EXTRACTOR_VERSION == GOLDEN_VERSION, f"new version: keep these values beside it: {found}"
    for tap, values in GOLDEN.items():
        assert found[tap] == pytest.approx(values, abs=2e-4), f"{tap} changed: raise EXTRACTOR_VERSION, keep {found}"


def test_pixels_of_the_fixed_picture():
    found = {
        view.directory: fingerprint(apply_view(fixed_picture(), view, Recipe("crop224-pad", 224), "golden.png"))
        for view in expand_views(["clean", "train:3", "val", "blur:1.5", "scale:0.6", "noise:5", "tencrop"])
    }
    assert AUGMENTATION_VERSION == GOLDEN_VIEWS_VERSION, f"new version: keep these values beside it: {found}"
    for name, value in GOLDEN_VIEWS.items():
        # JPEG decoders of other builds may differ by a level here and there
        assert found[name] == pytest.approx(value, abs=0.05), (
            f"{name} changed: raise AUGMENTATION_VERSION, keep {found}"
        )
