"""Geometries against torchvision, where it has the operation, and against their definition elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from extract_pictures import picture
from PIL import Image
from torchvision.transforms import functional

from stages.extract.geometry import resize_shorter, ten_crop, to_square

SIZES = [(224, 224), (225, 226), (223, 300), (300, 223), (100, 51), (7, 5), (1, 1), (640, 480), (227, 224), (221, 229)]


@pytest.mark.parametrize("size", SIZES)
def test_centre_crop_pads_and_rounds_as_torchvision(size):
    image = picture(*size)
    expected = functional.center_crop(image, [224, 224])
    assert np.array_equal(to_square(image, "crop224-pad", 224), expected)


@pytest.mark.parametrize("size", SIZES)
def test_squash_ignores_the_shape(size):
    image = picture(*size)
    expected = functional.center_crop(image.resize((256, 256), Image.Resampling.BILINEAR), [224, 224])
    assert np.array_equal(to_square(image, "squash256-crop224", 224), expected)


@pytest.mark.parametrize("size", SIZES[:-3])
def test_shorter_side_is_resized_as_torchvision(size):
    image = picture(*size)
    expected = functional.resize(image, 224, functional.InterpolationMode.BICUBIC)
    assert np.array_equal(to_square(image, "short224-crop", 224), functional.center_crop(expected, [224, 224]))
    assert resize_shorter(image, 256, Image.Resampling.BILINEAR).size == functional.resize(image, 256).size


def test_small_images_are_tiled_and_large_ones_only_cropped():
    image = picture(100, 60)
    tiled = np.tile(np.asarray(image), (4, 3, 1))  # 240 x 300: the fewest that fill 224
    assert np.array_equal(to_square(image, "tile224", 224), tiled[8:232, 38:262])
    large = picture(300, 260)
    assert np.array_equal(to_square(large, "tile224", 224), to_square(large, "crop224-pad", 224))


def test_sizes_follow_the_backbone():
    assert to_square(picture(500, 700), "squash256-crop224", 336).size == (336, 336)
    image = picture(50, 40)
    squashed = image.resize((384, 384), Image.Resampling.BILINEAR)
    assert np.array_equal(to_square(image, "squash256-crop224", 336), functional.center_crop(squashed, [336, 336]))


@pytest.mark.parametrize("size", [(300, 250), (224, 224), (301, 255)])
def test_ten_crops_are_torchvisions(size):
    image = picture(*size)
    expected = functional.ten_crop(image, [224, 224])
    for number in range(10):
        assert np.array_equal(ten_crop(image, "crop224-pad", 224, number), expected[number]), number


def test_ten_crops_of_a_small_image_are_padded():
    assert all(ten_crop(picture(30, 300), "crop224-pad", 224, number).size == (224, 224) for number in range(10))
