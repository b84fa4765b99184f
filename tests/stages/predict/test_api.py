"""The Python interface takes images in any form and keeps their order."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stages.predict.looks import Looks, see
from storage.errors import SettingError


@pytest.fixture
def path(study):
    return study.images("test") / "fake" / "nearest" / "00000.png"


def test_every_form_of_an_image_gives_the_same(detector, path):
    with Image.open(path) as image:
        image.load()
    array = np.asarray(image)
    alpha = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    found = detector.score([path, str(path), image, image.convert("RGBA"), array, alpha])
    assert [one.path for one in found] == [str(path), str(path), None, None, None, None]
    assert [one.logit for one in found] == pytest.approx([found[0].logit] * 6, abs=1e-3)


def test_order_and_failures(detector, path, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    images = [path, tmp_path / "bad.jpg", tmp_path / "none.jpg", path]
    found = detector.score(images, batch=2)
    assert [one.path for one in found] == [str(image) for image in images]
    assert [one.status for one in found] == ["ok", "failed", "failed", "ok"]
    assert found[0].logit == pytest.approx(found[3].logit, abs=1e-3)


def test_nothing_gives_nothing(detector):
    assert detector.score([]) == []


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8, 2), np.uint8), np.zeros((0, 8, 3), np.uint8), 3, None]
)
def test_what_is_no_image_is_said(detector, image):
    with pytest.raises(SettingError, match="expected"):
        detector.score([image])


def test_grey_arrays(detector):
    grey = np.random.default_rng(0).integers(0, 255, (240, 250), dtype=np.uint8)
    one, other = detector.score([grey, np.dstack([grey] * 3)])
    assert one.logit == pytest.approx(other.logit, abs=1e-3)


def test_an_image_whose_features_are_not_finite_fails_alone(detector, path, monkeypatch):
    taps = type(detector.backbone).taps

    def broken(self, pixels, *arguments, **options):
        tokens = taps(self, pixels, *arguments, **options)["cls"].clone()
        tokens[:, 1:2] = float("nan")
        return {"cls": tokens}

    monkeypatch.setattr(type(detector.backbone), "taps", broken)
    seen = [see(path, detector.job(Looks())) for _ in range(4)]
    found = list(detector.predictions(seen, Looks(), batch=4))
    assert [one.status for one in found].count("failed") == 1
    assert "not finite" in next(one.error for one in found if one.error)


@pytest.mark.parametrize(
    ("options", "passes"), [({"batch": 4}, [1, 2, 4, 2]), ({"check": True, "batch": 12}, [6, 12, 12, 12, 12])]
)
def test_no_forward_pass_is_larger_than_the_batch(detector, path, monkeypatch, options, passes):
    taps, found = type(detector.backbone).taps, []

    def noted(self, pixels, *arguments, **options):
        found.append(len(pixels))
        return taps(self, pixels, *arguments, **options)

    monkeypatch.setattr(type(detector.backbone), "taps", noted)
    detector.score([path] * 9, **options)
    assert found == passes


def test_loading_a_detector_imports_nothing_that_it_does_not_run(study):
    code = (
        "import sys; from stages.predict import Detector\n"
        f"Detector.load({str(study.bundle)!r})\n"
        "slow = ('torch._dynamo', 'open_clip', 'timm', 'torchvision', 'h5py', 'sklearn', 'pandas', 'dask')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_the_package_imports_no_torch():
    code = "import stages.predict, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
