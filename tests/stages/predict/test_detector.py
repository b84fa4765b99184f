"""The Python interface: images in any form, in their order; the stability check; the scores of evaluation."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from ltdpipe import Detector, read_scores
from stages.evaluate.scores import sigmoid
from stages.extract.views import decoder_name
from stages.heads.settings import FAMILIES, Overrides, TrainSettings
from stages.predict.bundle import bundle_card, read_bundle, write_bundle
from stages.predict.calibration import run as calibrate
from stages.predict.detector import CHECKS, to_prediction
from stages.predict.make import run as make_bundle
from stages.predict.manifest import Calibration
from stages.reporter import SilentReporter
from stages.train.run import HeadToTrain
from stages.train.run import run as train
from storage.errors import SettingError


@pytest.fixture
def path(study):
    return study.images("test") / "fake" / "nearest" / "00000.png"


def opened(path):
    return Image.open(io.BytesIO(path.read_bytes()))


def test_predict_gives_the_scores_of_evaluation(study, detector):
    scores = read_scores(study.scores("test"))
    found = detector.score(study.images("test") / path for path in scores.path)
    assert [one.logit for one in found] == pytest.approx(scores.logit.tolist(), abs=1e-4)
    assert [one.probability for one in found] == pytest.approx(
        sigmoid(np.array([one.logit for one in found])).tolist(), abs=1e-12
    )  # not calibrated: the sigmoid
    assert {one.verdict for one in found} == {"real", "synthetic"}


def test_every_form_of_an_image_gives_the_same(detector, path):
    with Image.open(path) as image:
        image.load()
    array = np.asarray(image)
    alpha = np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])
    found = detector.score([path, str(path), image, image.convert("RGBA"), array, alpha, path.read_bytes()])
    assert [one.path for one in found] == [str(path), str(path), None, None, None, None, None]
    assert [one.logit for one in found] == pytest.approx([found[0].logit] * 7, abs=1e-3)
    grey, three = detector.score([array[..., 0], np.dstack([array[..., 0]] * 3)])
    assert grey.logit == pytest.approx(three.logit, abs=1e-3)


def test_images_of_a_batch_keep_their_order_their_pixels_and_their_failures(study, detector, path, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.png")
    real = sorted((study.images("test") / "real").iterdir())[:6]
    images = [path, tmp_path / "bad.jpg", *real, tmp_path / "none.jpg", tmp_path / "pipe.png", path]
    found = detector.score(images, batch=4)
    assert [one.path for one in found] == [str(image) for image in images]
    assert [one.path for one in found if one.status == "failed"] == [
        str(tmp_path / name) for name in ("bad.jpg", "none.jpg", "pipe.png")
    ]
    assert found[-2].error == "unreadable: no regular file"
    alone = [detector.score([image])[0].logit for image in (path, *real)]
    assert len(set(alone)) == 7
    logits = [one.logit for one in found if one.status == "ok"]
    assert logits == pytest.approx([*alone, alone[0]], abs=1e-3)


@pytest.mark.parametrize("form", [str, Path.read_bytes, opened, lambda path: np.asarray(opened(path)), len])
def test_one_image_in_place_of_several_is_refused(detector, path, form):
    image = 3 if form is len else form(path)
    with pytest.raises(SettingError, match=f"expected several images, found one {type(image).__name__}"):
        detector.score(image)


def test_exif_turns_an_image_in_memory_as_it_turns_its_file(study, detector, tmp_path):
    bundle = read_bundle(study.bundle)
    view = bundle.manifest.spec.view | {"decoder": decoder_name(apply_exif=True)}
    changes = {"apply_exif": True, "spec": replace(bundle.manifest.spec, view=view)}
    write_bundle(tmp_path / "turning.ltd", bundle.head, bundle.manifest.model_copy(update=changes))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (256, 320, 3), dtype=np.uint8)
    turning = Detector.load(tmp_path / "turning.ltd")
    for name in ("turned.jpg", "turned.png"):
        file = tmp_path / name
        Image.fromarray(pixels).save(file, exif=exif)
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


def test_an_image_in_memory_that_cannot_be_read_fails_alone_as_its_file_does(detector, path, tmp_path, monkeypatch):
    cut = tmp_path / "cut.png"
    cut.write_bytes(path.read_bytes()[:3000])
    closed = opened(path)
    closed.close()
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)  # as another library may have left it
    monkeypatch.setattr("stages.extract.read_image.MAX_PIXELS", 100_000)
    large = np.zeros((400, 400, 3), np.uint8)
    found = detector.score([path, cut, opened(cut), cut.read_bytes(), closed, b"", b"x", large, path], batch=3)
    assert [one.status for one in found] == ["ok", *["failed"] * 7, "ok"]
    assert found[1].error == found[2].error == found[3].error
    reasons = ["truncated", "damaged", "truncated", "no image", "too large"]
    assert [one.error.split(":")[0] for one in found[3:8]] == reasons
    assert {one.detector for one in found} == {detector.bundle.identity}


@pytest.mark.parametrize("mode", ["1", "LA", "P", "CMYK", "I;16", "F"])
def test_every_mode_is_read_in_memory_as_in_a_file(detector, path, tmp_path, mode):
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    if mode == "I;16":
        made = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    else:
        made = rgb.convert("L").convert("F") if mode == "F" else rgb.convert(mode)
    made.save(tmp_path / "image.tiff")
    from_file, in_memory = detector.score([tmp_path / "image.tiff", made], batch=1)
    assert (in_memory.status, in_memory.logit, in_memory.error) == (from_file.status, from_file.logit, from_file.error)


def checked(*logits, **calibration):
    return to_prediction(np.array(logits, dtype=float), Calibration(**calibration), CHECKS["mild"])


def test_a_flip_becomes_unsure_and_names_the_view():
    found = checked(1, 1, -0.1, 1, 1, 1)
    assert (found.logit, found.verdict, found.flipped) == (1.0, "unsure", CHECKS["mild"][1])
    assert found.spread == pytest.approx(found.probability - 1 / (1 + np.exp(0.1)))
    same = checked(*np.linspace(1, 2, 6))
    assert (same.verdict, same.spread, same.flipped) == ("synthetic", pytest.approx(0.15, abs=0.01), "")
    assert checked(*-np.linspace(1, 2, 6)).verdict == "real"


def test_check_scores_the_listed_views(detector, path):
    plain, checked = detector.score([path])[0], detector.score([path], check=True)[0]
    assert checked.logit == pytest.approx(plain.logit, abs=1e-3)
    assert checked.detector == f"{plain.detector}+check"
    with Image.open(path) as image:
        smaller = image.convert("RGB").resize([int(side * 0.9) for side in image.size], Image.Resampling.LANCZOS)
    logits = [plain.logit, detector.score([smaller])[0].logit]
    probabilities = detector.calibration.probabilities(np.array(logits))
    assert checked.spread >= abs(probabilities[0] - probabilities[1]) - 1e-4 > 0
    wide = detector.score([Image.new("RGB", (17_000, 224))], check=True)[0]  # WebP stops at 16,383
    assert wide.status == "ok"
    assert wide.error.startswith("view:")


def test_what_makes_a_verdict_less_sure_is_noted(detector, tmp_path):
    Image.fromarray(np.full((300, 300), 40_000, np.uint16)).save(tmp_path / "deep.png")
    found = detector.score([tmp_path / "deep.png", Image.new("RGB", (1, 400)), Image.new("RGB", (224, 224)), b"x"])
    assert [one.note for one in found[2:]] == [None, None]
    assert found[0].note.startswith("more than 8 bits of grey")
    assert found[1].note == "only 1 x 400 pixels, the backbone sees 224 x 224"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_any_family_goes_from_features_to_verdicts(study, tmp_path, family):
    head, bundle = tmp_path / "head.safetensors", tmp_path / "detector.ltd"
    settings = FAMILIES[family](train=Overrides(lr=1e-3, epochs=20))
    train(
        views=[study.features("train")],
        validation_view=study.features("train"),
        heads=[HeadToTrain(name="mine", settings=settings, seed=0, out=head)],
        settings=TrainSettings(batch=32, validation_share=0.2),
        reporter=SilentReporter(),
    )
    make_bundle(head=head, out=bundle, features=study.features("train"))
    calibrate(bundle=bundle, on=study.features("held"), out=bundle, target_fpr=0.2)
    assert FAMILIES[family].about in bundle_card(bundle)
    detector = Detector.load(bundle)
    found = detector.score(study.images("test") / "real" / f"{number:05d}.png" for number in range(2))
    assert all(one.verdict is not None and one.likeness is not None for one in found)
