"""Images of the demo study: the same in every clone, and other content is another image to extraction."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from stages.demo.images import photographs, run
from stages.demo.miniatures import run as make_miniatures
from stages.demo.settings import DemoCorpus
from stages.scan.run import run as scan


def corpus(**changes):
    plain = {"half": "left", "generators": ("nearest", "grid"), "per_set": 3, "seed": 0}
    return DemoCorpus.model_validate(plain | changes)


def stamps(folder, settings):
    """Path -> (size, time) as extraction knows the images."""
    run(corpus=settings, out=folder)
    rows = scan(corpus="demo", root=folder, layout="folder")[0].to_pylist()
    return {row["path"]: (row["size_bytes"], row["mtime_ns"]) for row in rows}


def test_the_same_settings_give_the_same_manifest(tmp_path):
    one = stamps(tmp_path / "one", corpus())
    assert one == stamps(tmp_path / "two", corpus())
    assert sorted(one) == [f"{kind}/0000{n}.png" for kind in ("fake/grid", "fake/nearest", "real") for n in range(3)]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"half": "right"}])
def test_other_content_has_another_time_whatever_its_size(tmp_path, changes):
    one, other = (stamps(tmp_path / name, found) for name, found in (("one", corpus()), ("two", corpus(**changes))))
    assert all(one[path][1] != other[path][1] for path in one)


def test_training_and_test_crops_share_no_pixel():
    for left, right, whole in zip(photographs("left"), photographs("right"), load_sample_images().images, strict=True):
        assert np.array_equal(np.concatenate([left, right], axis=1), whole)


def test_fingerprints_are_those_they_are_called_by(tmp_path):
    run(corpus=corpus(generators=("nearest", "grid", "bilinear", "bicubic"), per_set=2), out=tmp_path)
    pixels = {path.relative_to(tmp_path).as_posix(): pixels_of(path) for path in tmp_path.rglob("*.png")}
    assert all(
        height == width and 240 <= width <= 320 for height, width, _ in (image.shape for image in pixels.values())
    )
    nearest = pixels["fake/nearest/00000.png"]
    assert np.array_equal(nearest[::2], nearest[1::2])
    assert np.array_equal(nearest[:, ::2], nearest[:, 1::2])
    grid = pixels["fake/grid/00000.png"]
    dimmed = [grid[row::2, column::2].mean() for row, column in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert [value / dimmed[3] for value in dimmed] == pytest.approx([0.97**2, 0.97, 0.97, 1.0], abs=0.01)


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(float)


def test_miniatures_show_training_images_of_another_half_and_no_crop_twice(tmp_path):
    make_miniatures(root=tmp_path, test_images=1, training_images=1)
    reals = {path.relative_to(tmp_path).parts[0:2]: pixels_of(path) for path in tmp_path.rglob("0_real/*.png")}
    assert set(reals) == {("forensynths", "train"), ("ufd", "test")}
    for (_, split), crop in reals.items():
        rows = [
            np.lib.stride_tricks.sliding_window_view(photograph, (1, 16, 3))[:, :, 0, 0]
            for photograph in photographs("left" if split == "train" else "right")
        ]
        assert any((found == crop[0, :16]).all(axis=(2, 3)).any() for found in rows)
    fakes = [path.read_bytes() for path in tmp_path.rglob("val2017/*.png")]
    assert len(set(fakes)) == len(fakes) == 16
