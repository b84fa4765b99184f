"""Whole extractions of small folders: what users of other tools reported, and what must not change a feature."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from extract_pictures import picture, save
from PIL import Image
from safetensors.torch import save_file

from stages.extract.backbone import Backbone, load_backbone
from stages.extract.plan import plan_shards
from stages.extract.read_image import read_image
from stages.extract.settings import ExtractSettings, Runtime
from stages.extract.towers import build_tower
from storage.errors import DataError, ResourceError, SettingError
from storage.manifest import manifest_table

TAPS = ("cls", "ln2_cls", "embedding")


def cut(path, share=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def published(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_picture_in_six_formats_beside_a_text(tiny, folder, extract, reporter):
    formats = {"a.JPG": "JPEG", "b.jpeg": "JPEG", "c.WEBP": "WEBP", "d.Png": "PNG", "e.tif": "TIFF", "f.bmp": "BMP"}
    for name, kind in formats.items():
        save(folder / name, format=kind)
    (folder / "notes.txt").write_text("no picture")
    summary, table = extract(folder)
    assert table.index["path"].to_pylist() == list(formats)
    assert table.index["format"].to_pylist() == list(formats.values())
    assert summary.usable == 6
    assert np.array_equal(table.read()[3], table.read()[4])  # the lossless ones are one picture
    assert sum(row.images for row in summary.formats) == 6


def test_each_row_is_what_the_backbone_says_of_its_file_beside_a_broken_one(tiny, folder, extract):
    names = [f"{'1_fake' if number == 3 else '0_real'}/{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        save(folder / name, seed=number, size=(32, 32))
    (folder / names[2]).write_bytes(b"broken")
    _, table = extract(folder, runtime=Runtime(loaders=0, batch=4))
    seeds = [0, 1, 4, 5, 3]  # in the order of their paths
    assert table.index["path"].to_pylist() == [names[seed] for seed in seeds]
    assert table.index["label"].to_pylist() == [0, 0, 0, 0, 1]
    pixels = np.stack([np.array(picture(32, 32, seed=seed)) for seed in seeds])
    taps = load_backbone("tiny", weights="random:0", precision="fp32").taps(pixels, ("cls",), range(3))
    assert np.abs(table.read().astype(float) - taps["cls"].numpy().swapaxes(0, 1)).max() < 2e-3


def test_loaders_and_views_beside_change_no_byte(tiny, folder, extract, tmp_path):
    for number in range(23):
        save(folder / f"{number}.png", seed=number)
    cut(folder / "5.png")
    views = ["clean", "train:2", "jpeg:70"]
    for loaders in (0, 2):
        runtime = Runtime(loaders=loaders, batch=4, shard_size=10)
        extract(folder, out=f"out{loaders}", store=f"store{loaders}", views=views, runtime=runtime)
    for view in ("clean", "train-0", "train-1", "jpeg-70"):
        first, other = (published(tmp_path / f"out{loaders}" / view) for loaders in (0, 2))
        assert len(first) == 2 * 3 + 1
        assert first == other
    extract(folder, out="alone", store="alone", views=["jpeg:70"], runtime=Runtime(loaders=0, batch=4, shard_size=10))
    assert published(tmp_path / "alone" / "jpeg-70") == other


def test_batch_size_changes_rounding_alone(tiny, folder, extract):
    for number in range(35):
        save(folder / f"{number}.png", seed=number)
    expected, table = (
        extract(folder, out=f"{size}", store=f"{size}", runtime=Runtime(loaders=0, batch=size), taps=TAPS)[1]
        for size in (16, 33)
    )
    assert table.index["path"].to_pylist() == expected.index["path"].to_pylist()
    for tap in TAPS:
        found, wanted = (each.read(tap).astype(float) for each in (table, expected))
        assert found.shape[0] == 35
        # float16 holds 11 bits: one unit in the last place of the largest numbers here is 2e-3
        assert (np.abs(found - wanted) <= 1e-4 + 2**-10 * np.abs(wanted)).all()


def test_views_that_lack_the_same_images_share_chunks_which_come_in_manifest_order():
    manifest = manifest_table({"path": f"{row}.png", "sets": [], "size_bytes": 1, "mtime_ns": 1} for row in range(5))
    missing = [np.arange(3, 5), np.arange(4), np.arange(3, 5)]
    plans = plan_shards(manifest, missing, [itertools.count(first) for first in (5, 0, 7)], 2)
    assert [(plan.images["path"].to_pylist(), plan.shards) for plan in plans] == [
        (["0.png", "1.png"], {1: 0}),
        (["2.png", "3.png"], {1: 1}),
        (["3.png", "4.png"], {0: 5, 2: 7}),
    ]


def test_a_new_view_on_an_old_corpus_extracts_that_view_alone(tiny, folder, extract, reporter, monkeypatch):
    wanted = []

    def recording(job, task, out):
        wanted.append(task.views)
        return read_image(job, task, out)

    monkeypatch.setattr("stages.extract.loaders.read_image", recording)
    for number in range(3):
        save(folder / f"{number}.png", seed=number)
    extract(folder)
    assert reporter.done == 3
    assert wanted == [(0,)] * 3
    summary, _ = extract(folder, views=["clean", "val"])
    assert summary.views == {"clean": 0, "val": 3}
    assert summary.extracted == 3
    assert len(set(summary.keys.values())) == 2
    summary, _ = extract(folder, views=["clean", "val"])
    assert summary.extracted == 0
    save(folder / "3.png", seed=3)
    summary, _ = extract(folder, views=["clean", "val"])
    assert summary.views == {"clean": 1, "val": 1}
    assert summary.extracted == 1
    assert reporter.done == 3 + 3 + 1  # one decode serves both views
    assert wanted[3:] == [(1,)] * 3 + [(0, 1)]


def test_a_view_that_cannot_be_made_fails_alone(tiny, folder, extract, reporter):
    save(folder / "a.png")
    Image.new("RGB", (17_000, 2)).save(folder / "b.png")  # WebP ends at 16,383 pixels
    summary, clean = extract(folder, views=["clean", "webp:50"])
    assert len(clean) == 2
    assert summary.usable == 1
    assert summary.failed_kinds == {"view": 1}
    assert (reporter.done, reporter.failed) == (2, 1)


def test_weights_with_another_activation_are_kept_apart(tiny, folder, extract, tmp_path):
    save(folder / "a.png")
    save_file(build_tower(tiny, 5).module.state_dict(), tmp_path / "vit.safetensors")
    quick, features = extract(folder, weights=str(tmp_path / "vit.safetensors"))
    plain, others = extract(folder, out="gelu", backbone="tiny-gelu", weights=str(tmp_path / "vit.safetensors"))
    assert quick.key != plain.key
    assert features.spec.weights == others.spec.weights
    assert "activation: quickgelu here, gelu there" in features.spec.difference(others.spec)
    _, made = extract(folder, out="seed", weights="random:5")
    assert made.spec.weights == f"random:5:{features.spec.weights}"


def test_chosen_blocks_and_taps_are_stored(tiny, folder, extract):
    save(folder / "a.png")
    _, whole = extract(folder)
    _, some = extract(folder, out="some", taps=("cls", "attention", "mean"), blocks="1-2")
    assert some.spec.stored_blocks == (1, 2)
    assert ExtractSettings(blocks=(2, 0, 2)).stored_blocks(3) == (0, 2)
    assert (some.read("attention").shape, some.read("mean").shape) == ((1, 2, 4), (1, 32))
    assert (some.spec.patches, some.spec.taps) == (4, ("attention", "cls", "mean"))
    assert (some.spec.mean, some.spec.std) == (tiny.mean, tiny.std)
    swapped, _ = extract(folder, out="some", taps=("mean", "cls", "attention"), blocks="1-2")
    assert swapped.extracted == 0  # the order of the taps is no setting
    assert np.abs(some.read("cls", blocks=[1]).astype(float) - whole.read("cls", blocks=[1]).astype(float)).max() < 2e-3
    with pytest.raises(SettingError, match="has the blocks 0-2"):
        extract(folder, blocks="11-19")
    with pytest.raises(DataError, match="lacks block"):
        some.read("cls", blocks=[0])


def test_nothing_readable_is_an_error_that_names_the_reasons(tiny, folder, extract):
    (folder / "a.jpg").write_text("x")
    (folder / "b.png").touch()
    with pytest.raises(DataError, match=r"none of 2 images .* can be read \(no image.*; truncated"):
        extract(folder)
    assert not (folder.parent / "out").exists()


def test_memory_error_of_the_gpu_halves_the_batch(tiny, folder, extract, monkeypatch):
    for number in range(9):
        save(folder / f"{number}.png", seed=number)
    _, expected = extract(folder, runtime=Runtime(loaders=0, batch=2))
    taps, sizes = Backbone.taps, []

    def small(self, pixels, *arguments):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError
        return taps(self, pixels, *arguments)

    monkeypatch.setattr(Backbone, "taps", small)
    _, table = extract(folder, out="other", store="other", runtime=Runtime(loaders=0, batch=8))
    assert np.array_equal(table.read(), expected.read())
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


def test_auto_goes_on_in_the_precision_that_a_corpus_was_begun_in(tiny, folder, extract, reporter, monkeypatch):
    """A GPU node makes features, a login node without one reads them and never starts over."""

    def on_gpu(*arguments, **settings):
        return dataclasses.replace(load_backbone(*arguments, **settings), precision="fp16")

    save(folder / "a.png", seed=1)
    with monkeypatch.context() as gpu:
        gpu.setattr("stages.extract.run.load_backbone", on_gpu)
        gpu.setattr("stages.extract.run._check_precision", lambda *_: None)
        extract(folder)
    made = published(folder.parent / "out" / "clean")
    summary, table = extract(folder)
    assert (table.spec.precision, summary.views["clean"]) == ("fp16", 0)
    assert published(folder.parent / "out" / "clean") == made
    assert any("fp16 so far, and stay so; extract.precision fp32 makes them anew" in note for note in reporter.notes)
    save(folder / "b.png", seed=2)
    with pytest.raises(ResourceError, match=r"made in fp16 on a GPU, and 1 more cannot be made here"):
        extract(folder)
    assert published(folder.parent / "out" / "clean") == made
    assert extract(folder, precision="fp32")[1].spec.precision == "fp32"
    assert extract(folder)[1].spec.precision == "fp32"
