"""Views: geometry against torchvision, augmentation against values from SciPy, seeds, degradations, and the key."""

import io

import numpy as np
import pytest
from extract_pictures import picture
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torchvision.transforms import functional

from stages.extract.views import (
    AUGMENTATION_VERSION,
    Recipe,
    apply_view,
    blur,
    degrade,
    draws,
    ten_crop,
    to_square,
    view_spec,
)
from storage.views import Degradation, View, expand_views

RECIPE = Recipe("crop224-pad", 224)


def view_pixels(image, view, path="a.png", recipe=RECIPE):
    return np.asarray(apply_view(image, view, recipe, path))


@pytest.mark.parametrize("sigma", [0.3, 1.73])
def test_blur_floors_after_each_pass(sigma):
    image = picture(90, 70)
    values = np.asarray(image).astype(np.float64)
    for axis in (0, 1):  # vertical first
        values = np.floor(gaussian_filter1d(values, sigma, axis=axis, mode="reflect", truncate=4.0))
    blurred = np.asarray(blur(image, sigma))
    assert np.array_equal(blurred, values)
    rounded = gaussian_filter1d(np.asarray(image).astype(float), sigma, axis=0, mode="reflect")
    rounded = np.rint(gaussian_filter1d(rounded, sigma, axis=1, mode="reflect"))
    assert 0.7 < (rounded - blurred).mean() < 1.3  # about one level darker than a rounded blur


def test_training_view_follows_the_draws_of_its_image():
    """The chain of METHOD, from the same draws: 256, blur, JPEG, crop, flip."""
    for seed in range(12):
        image, view = picture(300, 400, seed=seed), View("train", seed % 3)
        draw = draws("a.png", view, seed)
        blurred, sigma = draw.random() < 0.2, draw.uniform(0, 2)
        compressed, quality = draw.random() < 0.5, draw.integers(70, 101)
        expected = image.resize((256, int(256 * 400 / 300)), Image.Resampling.BILINEAR)
        expected = blur(expected, sigma) if blurred else expected
        if compressed:
            buffer = io.BytesIO()
            expected.save(buffer, "JPEG", quality=int(quality))
            expected = Image.open(buffer).convert("RGB")
        left, top = draw.integers(256 - 224 + 1), draw.integers(expected.height - 224 + 1)
        pixels = np.asarray(expected)[top : top + 224, left : left + 224]
        pixels = pixels[:, ::-1] if draw.random() < 0.5 else pixels
        assert np.array_equal(view_pixels(image, view, recipe=Recipe("tile224", 224, seed)), pixels)


def test_views_differ_by_path_number_and_seed_and_by_nothing_else():
    image = picture(400, 400)
    pixels = {
        (path, number, seed): view_pixels(image, View("train", number), path, Recipe("crop224-pad", 224, seed))
        for path in ("a.png", "b.png")
        for number in (0, 1)
        for seed in (0, 1)
    }
    values = list(pixels.values())
    assert all(not np.array_equal(a, b) for n, a in enumerate(values) for b in values[:n])
    again = view_pixels(image, View("train", 1), "b.png", Recipe("squash256-crop224", 224, 1))
    assert np.array_equal(again, pixels["b.png", 1, 1])


def test_validation_view_is_a_centre_crop_that_is_sometimes_blurred_or_compressed():
    image = picture(256, 256)
    plain = np.asarray(image)[16:240, 16:240]
    seen = {view_pixels(image, View("val"), f"{n}.png").tobytes() for n in range(60)}
    assert plain.tobytes() in seen
    assert len(seen) == 4  # with and without each of the two
    for number in range(20):
        draw = draws(f"{number}.png", View("val"), 0)
        blurred, compressed = draw.random() < 0.2, draw.random() < 0.5
        expected = blur(image, 1.0) if blurred else image
        if compressed:
            buffer = io.BytesIO()
            expected.save(buffer, "JPEG", quality=85)
            expected = Image.open(buffer).convert("RGB")
        assert np.array_equal(view_pixels(image, View("val"), f"{number}.png"), np.asarray(expected)[16:240, 16:240])


def test_degradations_come_before_the_geometry_in_their_order():
    image = picture(500, 400)
    chain = View("degraded", steps=(Degradation("scale", 0.5), Degradation("jpeg", 70)))
    buffer = io.BytesIO()
    image.resize((250, 200), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=70)
    small = np.asarray(Image.open(buffer).convert("RGB"))
    expected = np.zeros((224, 224, 3), np.uint8)
    expected[12:212] = small[:, 13:237]
    assert np.array_equal(view_pixels(image, chain), expected)


def test_what_platforms_and_people_do_to_a_picture():
    rng, image = np.random.default_rng(0), picture(300, 200)
    assert degrade(picture(99, 51), Degradation("scale", 0.5), rng).size == (49, 25)
    assert degrade(picture(3, 1), Degradation("scale", 0.1), rng).size == (1, 1)
    assert degrade(picture(2001, 1500), Degradation("fit", 512), rng).size == (512, 384)
    assert degrade(picture(30, 2000), Degradation("fit", 16), rng).size == (1, 16)
    assert np.array_equal(degrade(image, Degradation("fit", 512), rng), image)
    barred = np.asarray(degrade(image, Degradation("letterbox", 0.1), rng))
    assert barred.shape == (240, 300, 3)
    assert not barred[:20].any()
    assert not barred[-20:].any()
    assert np.array_equal(barred[20:-20], image)
    assert np.array_equal(degrade(image, Degradation("corner", 0.6), rng), np.asarray(image)[:120, :180])


def test_noise_has_its_deviation_and_is_the_same_each_time():
    grey = Image.new("RGB", (224, 224), (128, 128, 128))
    view = View("degraded", steps=(Degradation("noise", 8),))
    noisy = view_pixels(grey, view)
    assert abs((noisy.astype(float) - 128).std() - 8) < 0.1
    assert np.array_equal(noisy, view_pixels(grey, view))
    assert not np.array_equal(noisy, view_pixels(grey, view, "b.png"))
    drawn = draws("a.png", view, 0).normal(0, 8, (224, 224, 3))
    assert np.array_equal(noisy, np.rint(128 + drawn))
    white = view_pixels(Image.new("RGB", (224, 224), (254, 254, 254)), view)
    assert np.array_equal(white, np.rint(254 + drawn).clip(0, 255))


SIZES = [(224, 224), (225, 226), (223, 300), (100, 51), (1, 1), (640, 480)]


@pytest.mark.parametrize("size", SIZES)
def test_crops_pad_and_round_and_sides_are_resized_as_torchvision_does(size):
    image = picture(*size)
    squashed = image.resize((256, 256), Image.Resampling.BILINEAR)
    expected = {"crop224-pad": image, "squash256-crop224": squashed}
    if min(size) > 1:
        expected["short224-crop"] = functional.resize(image, 224, functional.InterpolationMode.BICUBIC)
    for geometry, resized in expected.items():
        assert np.array_equal(to_square(image, geometry, 224), functional.center_crop(resized, [224, 224])), geometry


def test_small_images_are_tiled_and_large_ones_only_cropped():
    image = picture(100, 60)
    tiled = np.tile(np.asarray(image), (4, 3, 1))  # 240 x 300: the fewest that fill 224
    assert np.array_equal(to_square(image, "tile224", 224), tiled[8:232, 38:262])
    wide = picture(300, 100)
    assert np.array_equal(to_square(wide, "tile224", 224), np.tile(np.asarray(wide), (3, 1, 1))[38:262, 38:262])
    large = picture(300, 260)
    assert np.array_equal(to_square(large, "tile224", 224), to_square(large, "crop224-pad", 224))


@pytest.mark.parametrize("size", [(300, 250), (301, 255)])
def test_ten_crops_are_torchvisions(size):
    image = picture(*size)
    expected = functional.ten_crop(image, [224, 224])
    for number in range(10):
        assert np.array_equal(ten_crop(image, "crop224-pad", 224, number), expected[number]), number


def test_key_holds_what_changes_a_view_and_nothing_else():
    def spec(setting, geometry="tile224", seed=0, apply_exif=False):
        (view,) = expand_views([setting])
        return view_spec(view, Recipe(geometry, 224, seed, apply_exif))

    decoded = {"decoder": "pillow-rgb-1", "geometry": "tile224", "size": 224}
    assert spec("clean") == decoded | {"augmentation": "none"}
    assert spec("jpeg:70") == decoded | {"augmentation": "jpeg-70", "augmentation_version": AUGMENTATION_VERSION}
    assert spec("clean") == spec("clean", seed=5)
    assert spec("jpeg:70") == spec("jpeg:70", seed=5)
    assert spec("noise:2") != spec("noise:2", seed=5)
    assert spec("train:1") != spec("train:1", seed=5)
    assert spec("train:1") == spec("train:1", geometry="crop224-pad")
    assert spec("clean") != spec("clean", geometry="crop224-pad")
    assert spec("clean") != spec("clean", apply_exif=True)
    (clean,) = expand_views(["clean"])
    assert view_spec(clean, Recipe("tile224", 336))["size"] == 336
    assert len({str(spec(name)) for name in ("clean", "val", "train:1", "jpeg:70", "jpeg:71", "blur:1")}) == 6
