"""The loop from images to shards: what an interruption keeps, how far a device is ahead, what is refused."""

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
import pytest
from extract_pictures import save

from stages.extract.backbone import Backbone, load_backbone, take_free
from stages.extract.read_image import read_image
from stages.extract.settings import Runtime
from storage.errors import DataError

VIEWS = ["clean", "jpeg:70"]
RUNTIME = Runtime(loaders=0, batch=3, shard_size=8)


@pytest.fixture
def pictures(tiny, folder):
    """Three shards; of the second one image fails, and another in one view."""
    for number in range(20):
        save(folder / f"{number:02d}.png", seed=number)
    (folder / "09.png").write_text("no picture")
    return folder


def published(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def interrupted(extract, reporter, monkeypatch):
    """Extract, and interrupt it after so many images were counted."""

    def run(folder, images, **options):
        counted = itertools.count(1)

        def advance(*_arguments, **_options):
            if next(counted) == images:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(reporter, "advance", advance)
            with pytest.raises(KeyboardInterrupt):
                extract(folder, views=VIEWS, runtime=RUNTIME, **options)

    return run


@pytest.fixture
def read(monkeypatch):
    """Path of every image that is read."""
    paths = []

    def recording(spec, task, out):
        paths.append(task.path)
        return read_image(spec, task, out)

    monkeypatch.setattr("stages.extract.loaders.read_image", recording)
    return paths


# whole shards are kept, and whole batches of the last; the image that fails is in none
@pytest.mark.parametrize(("images", "kept"), [(1, 0), (8, 6), (13, 12)])
def test_an_interrupted_run_goes_on_behind_what_it_had_done_to_the_same_bytes(  # noqa: PLR0917
    pictures, extract, interrupted, read, tmp_path, images, kept
):
    extract(pictures, views=VIEWS, runtime=RUNTIME, out="calm", store="other")
    interrupted(pictures, images)
    read.clear()
    extract(pictures, views=VIEWS, runtime=RUNTIME)
    assert len(read) == 20 - kept
    assert published(tmp_path / "out") == published(tmp_path / "calm")
    assert not list(tmp_path.rglob("unfinished-*"))


@pytest.mark.parametrize("change", ["image", "damage", "shard size", "another picture"])
def test_what_is_kept_of_other_images_or_is_damaged_is_made_again(  # noqa: PLR0917
    pictures, extract, interrupted, read, tmp_path, change
):
    runtime = RUNTIME
    interrupted(pictures, 7)
    kept = sorted((tmp_path / "store").rglob("unfinished-*.h5"))
    assert len(kept) == 2
    if change == "image":
        save(pictures / "02.png", seed=99, size=(50, 60))
    elif change == "another picture":
        save(pictures / "015.png", seed=99)  # moves the bounds of the shard
    elif change == "shard size":
        runtime = dataclasses.replace(RUNTIME, shard_size=5)
    else:
        for path in kept:
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-9])
    read.clear()
    extract(pictures, views=VIEWS, runtime=runtime)
    assert len(read) == 20 + (change == "another picture")
    extract(pictures, views=VIEWS, runtime=runtime, out="calm", store="other")
    assert published(tmp_path / "out") == published(tmp_path / "calm")


def test_a_slow_machine_takes_fewer_images_at_once_and_gives_the_same_bytes(pictures, extract, tmp_path, monkeypatch):
    runtime = dataclasses.replace(RUNTIME, batch=20, shard_size=20)
    extract(pictures, views=VIEWS, runtime=runtime, out="calm", store="other")
    submit, sizes = Backbone.submit, []

    def counting(self, pixels, spec):
        sizes.append(len(pixels))
        return submit(self, pixels, spec)

    monkeypatch.setattr(Backbone, "submit", counting)
    monkeypatch.setattr("stages.extract.encode._LONGEST_PASS_S", 0)
    extract(pictures, views=VIEWS, runtime=runtime)
    assert sizes == [19, 8, 11]
    assert published(tmp_path / "out") == published(tmp_path / "calm")


class InOrderDevice(Backbone):
    """A device that has several batches at once, and records when each is handed over and waited for."""

    log: ClassVar[list[tuple[str, int]]] = []
    in_flight = 2

    def submit(self, pixels, spec):
        number = sum(what == "submit" for what, _ in self.log)
        self.log.append(("submit", number))
        features = super().submit(pixels.copy(), spec)  # it has its own copy: the buffer is filled again at once

        def wait():
            self.log.append(("wait", number))
            return features()

        return wait


def test_a_device_runs_ahead_also_over_the_ends_of_shards_and_gives_the_same_bytes(
    pictures, extract, tmp_path, monkeypatch
):
    extract(pictures, views=VIEWS, runtime=RUNTIME, out="calm", store="other")

    def on_device(*arguments, **settings):
        loaded = load_backbone(*arguments, **settings)
        return InOrderDevice(**{field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)})

    monkeypatch.setattr("stages.extract.run.load_backbone", on_device)
    monkeypatch.setattr(InOrderDevice, "log", [])
    extract(pictures, views=VIEWS, runtime=RUNTIME)
    log = InOrderDevice.log
    batches = 2 * (3 + 3 + 2)
    assert [number for what, number in log if what == "wait"] == list(range(batches))
    for number in range(batches - 2):  # no result is waited for before the next batch is handed over
        assert log.index(("wait", number)) > log.index(("submit", number + 1))
    assert published(tmp_path / "out") == published(tmp_path / "calm")


@pytest.mark.parametrize(
    ("tap", "value", "what"),
    [
        ("cls", 7e4, "overflows float16"),
        ("embedding", np.nan, "is not finite"),
        ("attention", 1e-9, "is zero everywhere"),
    ],
)
def test_what_float16_would_lose_is_refused_with_the_image_s_name(  # noqa: PLR0917
    pictures, extract, monkeypatch, tap, value, what
):
    taps = Backbone.taps

    def broken(self, *arguments):
        found = taps(self, *arguments)
        (found[tap] if tap == "embedding" else found[tap].transpose(0, 1))[1] = value
        return found

    monkeypatch.setattr(Backbone, "taps", broken)
    with pytest.raises(DataError, match=rf"tap '{tap}' of '01\.png' {what}"):
        extract(pictures, taps=("cls", "attention", "embedding"), runtime=RUNTIME)


def test_each_process_takes_a_gpu_of_its_own_while_there_are_any(tmp_path):
    """Whatever its worker is called: strings, and the orders that dask-cuda gives, work too."""
    assert take_free(["0", "1", "2"], tmp_path) == 0
    assert take_free(["1", "2", "0"], tmp_path) == 0
    assert take_free(["0", "1", "2"], tmp_path) == 2
    assert take_free(["0", "1", "2"], tmp_path) == 0
