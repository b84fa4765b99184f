"""Small image files."""

import dataclasses
import os
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width=64, height=48, seed=0):
    """A smooth RGB picture, different for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def save(path, seed=0, size=(64, 48), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(*size, seed=seed).save(path, **options)
    return path


class DeadlySources:
    """Sources whose files called ``deadly`` end the process that reads them, and those called ``hanging`` stop it."""

    def __init__(self, folder):
        self.folder = folder

    def read(self, path):
        if "deadly" in path:
            os._exit(86)
        if "hanging" in path:
            signal.pause()
        return (self.folder / path).read_bytes()


def twice_killed_task(work, plan):
    """A Dask task whose worker is killed, once before the work and once when its shards are written."""
    from stages.extract.cluster import _task

    _be_killed_once("before")
    timing = _task(work, plan)
    _be_killed_once("after")
    return timing


def task_on_another_worker(work, plan):
    """A Dask task on a worker that computes in another precision than the first one."""
    from stages.extract import cluster

    loaded = cluster._backbone(cluster._backbone_settings(work.settings), work.runtime.compiled)
    other = dataclasses.replace(loaded, precision="another")
    cluster._backbone = lambda _settings, _compiled: other
    return cluster._task(work, plan)


def logged_task(work, plan):
    """A Dask task that writes down how often its worker has opened loaders; each worker gets one at least."""
    from distributed import get_worker

    from stages.extract import cluster

    if not hasattr(cluster, "opened"):
        cluster.opened, open_loaders = [], cluster.open_loaders
        cluster.open_loaders = lambda *arguments: cluster.opened.append(1) or open_loaders(*arguments)
    own = f"worker-{get_worker().name}"
    deadline = time.monotonic() + 120  # for another worker to join
    while [path.name for path in Path(os.environ["LOGGED"]).glob("worker-*")] == [own] and time.monotonic() < deadline:
        time.sleep(0.1)
    done = cluster._task(work, plan)
    Path(os.environ["LOGGED"], own).write_text(str(len(cluster.opened)))
    return done


def failing_task(work, plan):
    """A Dask task that fails on worker 0 as on a broken GPU, and with an image called failing on each worker."""
    from distributed import get_worker

    from stages.extract import cluster

    def broken(*_arguments, **_options):
        raise RuntimeError("CUDA error\nwith more lines")

    make_shards = cluster.make_shards
    if get_worker().name == 0 or any("failing" in row["path"] for row in plan.images.to_pylist()):
        cluster.make_shards = broken
    try:
        return cluster._task(work, plan)
    finally:
        cluster.make_shards = make_shards


def _be_killed_once(when):
    try:
        Path(os.environ["KILLED"], f"killed-{when}").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
