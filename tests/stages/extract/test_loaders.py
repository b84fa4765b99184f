"""Loader processes: order, crashes, and nothing left behind whoever dies."""

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from extract_pictures import DeadlySources, picture, save

from running import PROJECT, start_held, wait_until_held
from stages.extract import loaders as loaders_module
from stages.extract.loaders import open_loaders
from stages.extract.read_image import ReadSpec, Task
from stages.extract.views import Recipe
from storage.errors import ResourceError
from storage.sources import Sources
from storage.views import View

VIEWS = (View("clean"), View("tencrop", 3))


@pytest.fixture
def pictures(folder):
    for number in range(12):
        save(folder / f"{number:02d}.png", seed=number, size=(48, 40))
    return folder


@pytest.fixture
def deadly(pictures, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(Path(__file__).parent)]))
    return DeadlySources(pictures)


def spec(sources):
    return ReadSpec(sources, VIEWS, Recipe("crop224-pad", 32))


def loader_processes():
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # another one that ended in this moment
            if any("stages.extract.loaders" in word for word in process.cmdline()):
                found.append(process)
    return found


def runs(process):
    """Whether a process is alive; where nobody waits for orphans, dead ones stay as zombies."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tasks(*names):
    return [Task(name, (0, 1)) for name in names]


@pytest.mark.parametrize(("count", "ahead"), [(0, 1), (2, 3)])
def test_results_come_in_order_with_the_pixels_of_all_views(pictures, count, ahead):
    names = [f"{number:02d}.png" for number in range(12)]
    with open_loaders(spec(Sources.of(pictures)), count, ahead) as read:
        assert len(loader_processes()) == count
        for number, result in enumerate(read(tasks(*names))):
            assert np.array_equal(result.pixels[0], np.asarray(picture(48, 40, seed=number))[4:36, 8:40])
            assert np.array_equal(result.pixels[1], np.asarray(picture(48, 40, seed=number))[8:, 16:])
        assert number == 11
    assert not loader_processes()


def test_image_that_crashes_its_decoder_twice_is_recorded_and_the_rest_read(deadly):
    names = ["00.png", "01.png", "deadly.png", "02.png", "03.png", "04.png"]
    with open_loaders(spec(deadly), 2, 6) as read:
        reads = [(result.metadata["status"], result.metadata["error"]) for result in read(tasks(*names))]
        assert [status for status, _ in reads] == ["ok", "ok", "failed", "ok", "ok", "ok"]
        assert reads[2][1].startswith("crashed the decoder: the loader process ended with status 86 on it, 2 times")
        assert len(loader_processes()) == 2


def test_loader_that_is_killed_now_and_then_costs_no_image(pictures):
    with open_loaders(spec(Sources.of(pictures)), 1, 4) as read:
        for _ in range(3):  # also between two calls
            (loader,) = loader_processes()
            loader.kill()
            assert [result.metadata["status"] for result in read(tasks("00.png"))] == ["ok"]
        results = []
        for result in read(tasks(*[f"{number:02d}.png" for number in range(12)] * 5)):
            results.append(result.metadata["status"])
            if len(results) in {3, 20}:
                (loader,) = loader_processes()
                loader.kill()
        assert results == ["ok"] * 60


def test_loader_that_cannot_start_is_no_failure_of_an_image(deadly, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # DeadlySources cannot be imported there
    message = r"ended with status 1 before it read an image.*--loaders 0"
    with pytest.raises(ResourceError, match=message), open_loaders(spec(deadly), 1, 2):
        pass
    assert "ModuleNotFoundError" in capfd.readouterr().err
    assert not loader_processes()


def test_modules_called_as_ours_where_the_user_works_are_not_imported(pictures, tmp_path, monkeypatch):
    for name in ("storage", "stages"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with open_loaders(spec(Sources.of(pictures)), 1, 1) as read:
        assert [result.metadata["status"] for result in read(tasks("00.png"))] == ["ok"]


def test_too_little_shared_memory_is_said_at_once(pictures, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    message = r"no 0 MB of shared memory for the loaders \(No space left on device\); use a smaller --batch"
    with pytest.raises(ResourceError, match=message), open_loaders(spec(Sources.of(pictures)), 1, 2):
        pass
    assert not loader_processes()


def test_loader_that_hangs_is_killed_at_the_end(deadly, monkeypatch):
    monkeypatch.setattr(loaders_module, "_SECONDS_TO_END", 0.1)
    with open_loaders(spec(deadly), 1, 2) as read:
        results = read(tasks("00.png", "hanging.png"))
        next(results)
    assert not loader_processes()


def test_interrupt_of_the_whole_group_ends_no_loader(pictures):
    with open_loaders(spec(Sources.of(pictures)), 1, 4) as read:
        before = loader_processes()
        before[0].send_signal(signal.SIGINT)
        assert [result.metadata["status"] for result in read(tasks("00.png", "01.png"))] == ["ok", "ok"]
        assert loader_processes() == before


def test_death_of_the_main_process_ends_the_loaders(pictures, tmp_path):
    options = ("extract", str(pictures), "--out", str(tmp_path / "out"), "--backbone", "demo-vit", "--loaders", "2")
    main = start_held("stages.extract.encode:_Encoder:_run", 0, *options, cwd=tmp_path)
    wait_until_held(main)
    loaders = loader_processes()
    assert len(loaders) == 2
    main.kill()
    main.communicate(timeout=120)
    deadline = time.monotonic() + 120
    while any(map(runs, loaders)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, loaders))
