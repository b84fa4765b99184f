"""The Python interface takes images in any form and keeps their order."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from stages.extract.views import decoder_name
from stages.predict.bundle import read_bundle, write_bundle
from stages.predict.detector import Detector
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
    found = detector.score([path, str(path), image, image.convert("RGBA"), array, alpha, path.read_bytes()])
    assert [one.path for one in found] == [str(path), str(path), None, None, None, None, None]
    assert [one.logit for one in found] == pytest.approx([found[0].logit] * 7, abs=1e-3)


def test_order_and_failures(detector, path, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    images = [path, tmp_path / "bad.jpg", tmp_path / "none.jpg", path]
    found = detector.score(images, batch=2)
    assert [one.path for one in found] == [str(image) for image in images]
    assert [one.status for one in found] == ["ok", "failed", "failed", "ok"]
    assert found[0].logit == pytest.approx(found[3].logit, abs=1e-3)


def test_any_number_of_images_in_any_iterable(detector, path):
    assert detector.score([]) == []
    assert detector.score(iter(())) == []
    assert len(detector.score(path for _ in range(3))) == 3
    with Image.open(path) as image:
        assert len(detector.score(np.stack([np.asarray(image.convert("RGB"))] * 2))) == 2


def opened(path):
    return Image.open(io.BytesIO(path.read_bytes()))


@pytest.mark.parametrize("form", [str, Path, Path.read_bytes, opened, lambda path: np.asarray(opened(path)), len])
def test_one_image_in_place_of_several_is_refused(detector, path, form):
    image = 3 if form is len else form(path)
    with pytest.raises(SettingError, match=f"expected several images, found one {type(image).__name__}"):
        detector.score(image)


@pytest.fixture(scope="module")
def turning(study, tmp_path_factory):
    """A detector that turns pictures as their EXIF orientation says."""
    bundle = read_bundle(study.bundle)
    view = bundle.card.spec.view | {"decoder": decoder_name(apply_exif=True)}
    card = bundle.card.model_copy(update={"apply_exif": True, "spec": replace(bundle.card.spec, view=view)})
    path = tmp_path_factory.mktemp("turning") / "detector.ltd"
    write_bundle(path, bundle.head, card)
    return Detector.load(path)


def saved(pixels, path, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp"])
def test_exif_turns_an_image_in_memory_as_it_turns_its_file(detector, turning, tmp_path, name):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (256, 320, 3), dtype=np.uint8)
    file = saved(pixels, tmp_path / name, exif=exif)
    loaded = opened(file)
    loaded.load()
    upright = ImageOps.exif_transpose(loaded)
    for each, forms in (
        (detector, [file, opened(file), loaded, file.read_bytes(), np.asarray(loaded)]),
        (turning, [file, opened(file), loaded, file.read_bytes(), upright, np.asarray(upright)]),
    ):
        logits = [each.score([form])[0].logit for form in forms]
        assert logits == [logits[0]] * len(forms)
    assert detector.score([file])[0].logit != turning.score([file])[0].logit


def test_an_image_in_memory_that_cannot_be_read_is_a_row_as_its_file_is(detector, path, tmp_path, monkeypatch):
    cut = tmp_path / "cut.png"
    cut.write_bytes(path.read_bytes()[:3000])
    closed = opened(path)
    closed.close()
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)  # as another library may have left it
    found = detector.score([path, cut, opened(cut), cut.read_bytes(), closed, b"", b"x", path], batch=3)
    assert [one.status for one in found] == ["ok", *["failed"] * 6, "ok"]
    assert found[1].error == found[2].error == found[3].error
    assert [one.error.split(":")[0] for one in found[3:7]] == ["truncated", "damaged", "truncated", "no image"]
    assert {one.detector for one in found} == {found[0].detector}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_every_mode_is_read_in_memory_as_in_a_file(detector, path, tmp_path, mode):
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    if mode == "I;16":
        made = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    else:
        made = rgb.convert("L").convert("F") if mode == "F" else rgb.convert(mode)
    made.save(tmp_path / "image.tiff")
    with Image.open(tmp_path / "image.tiff") as kept:
        assert kept.mode == made.mode == mode
    from_file, in_memory = detector.score([tmp_path / "image.tiff", made], batch=1)
    assert (in_memory.status, in_memory.logit, in_memory.error) == (from_file.status, from_file.logit, from_file.error)


def test_a_picture_that_is_too_large_fails_alone_in_memory_as_in_a_file(detector, path, monkeypatch):
    monkeypatch.setattr("stages.extract.read_image.MAX_PIXELS", 10_000)
    found = detector.score([path, opened(path), np.zeros((200, 200, 3), np.uint8), np.zeros((50, 50), np.uint8)])
    assert [(one.error or "").split(":")[0] for one in found] == ["too large", "too large", "too large", ""]


def test_a_pipe_is_not_waited_for(detector, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (found,) = detector.score([tmp_path / "pipe.png"])
    assert (found.path, found.error) == (str(tmp_path / "pipe.png"), "unreadable: no regular file")


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
        "import sys; from ltdpipe import Detector\n"
        f"Detector.load({str(study.bundle)!r})\n"
        "slow = ('torch._dynamo', 'open_clip', 'timm', 'torchvision', 'h5py', 'sklearn', 'pandas', 'dask')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_the_package_imports_no_torch():
    code = "import stages.predict, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
