"""A real local Dask cluster with worker processes: same bytes, killed workers survived, deadly shards set aside."""

import os
import threading
import time
from pathlib import Path

import pytest
from distributed import LocalCluster
from extract_pictures import failing_task, logged_task, save, task_on_another_worker, twice_killed_task

from stages.extract import cluster as cluster_module
from stages.extract.settings import Runtime
from storage.errors import DataError, ResourceError

SHARD = 6


@pytest.fixture
def pictures(folder):
    for number in range(20):
        save(folder / f"{number:02d}.png", seed=number, size=(230, 240))
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:200])
    return folder


def published(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def own_tasks(monkeypatch):
    """Let workers run another function of ``extract_pictures`` as their task."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))

    def use(task, **env):
        monkeypatch.setattr(cluster_module, "_task", task)
        for name, value in env.items():
            monkeypatch.setenv(name, value)

    return use


def test_killed_workers_change_no_byte(pictures, extract, tmp_path, reporter, own_tasks):
    """demo-vit with one thread here and in the workers; one is killed before its work, another when it was written."""
    views = ["clean", "jpeg:70"]
    runtime = {"shard_size": SHARD, "loaders": 0, "batch": 4}
    own_tasks(twice_killed_task, KILLED=str(tmp_path))
    summary, _ = extract(
        pictures, backbone="demo-vit", out="out-cluster", store="cluster", views=views,
        runtime=Runtime(workers=2, **runtime),
    )  # fmt: skip
    assert {path.name for path in tmp_path.glob("killed-*")} == {"killed-before", "killed-after"}
    assert summary.failed_kinds == {"truncated": 1}
    assert reporter.done == 20
    extract(pictures, backbone="demo-vit", out="out-here", store="here", views=views, runtime=Runtime(**runtime))
    found, expected = published(tmp_path / "out-cluster"), published(tmp_path / "out-here")
    assert len(expected) == 2 * (2 * 4 + 1)
    assert found == expected


def test_worker_that_would_make_other_features_makes_nothing(pictures, extract, tmp_path, own_tasks):
    own_tasks(task_on_another_worker)
    with pytest.raises(ResourceError, match=r"worker \d at tcp://.* would make other features .*\(precision: .* here"):
        extract(pictures, backbone="demo-vit", runtime=Runtime(workers=2, loaders=0))
    assert not list((tmp_path / "store").rglob("shard-*"))


def test_address_without_a_scheduler_is_an_error_in_one_line(monkeypatch):
    monkeypatch.setattr(cluster_module, "_CONNECT_S", 1)
    with (
        pytest.raises(ResourceError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        cluster_module.open_cluster(Runtime(scheduler="tcp://127.0.0.1:9")),
    ):
        pass


def test_a_client_waits_for_workers_says_so_and_gives_work_to_those_that_join_later(
    pictures, extract, tmp_path, reporter, own_tasks
):
    own_tasks(logged_task, LOGGED=str(tmp_path))
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0", memory_limit=0) as cluster:
        runtime = Runtime(scheduler=cluster.scheduler_address, shard_size=SHARD, loaders=1, batch=4)
        run = threading.Thread(target=extract, args=(pictures,), kwargs={"backbone": "demo-vit", "runtime": runtime})
        run.start()
        while not any("has no worker yet; waiting for one" in note for note in reporter.notes):
            assert run.is_alive()
            time.sleep(0.1)
        cluster.scale(1)
        while not list(tmp_path.glob("worker-*")):
            assert run.is_alive()
            time.sleep(0.1)
        cluster.scale(2)
        run.join()
    assert reporter.done == 20
    assert len(list(tmp_path.glob("worker-*"))) == 2
    loaders = {path.read_text() for path in tmp_path.glob("worker-*")}
    assert loaders == {"1"}  # a worker has opened them once, for all its shards


def test_a_failing_worker_s_shards_are_given_to_others_and_one_that_fails_everywhere_is_named(
    folder, extract, tmp_path, reporter, own_tasks
):
    for number in range(12):
        save(folder / f"{number:02d}{'-failing' if number == 7 else ''}.png", seed=number)
    own_tasks(failing_task)
    with pytest.raises(DataError, match=r"1 shard\(s\) of 3 images .*RuntimeError: CUDA error.*quarantine.txt"):
        extract(folder, backbone="demo-vit", runtime=Runtime(workers=2, shard_size=3, loaders=0))
    assert any("failed (RuntimeError: CUDA error); its shard is given to another" in note for note in reporter.notes)
    (listed,) = (tmp_path / "store").rglob("quarantine.txt")
    assert listed.read_text().split() == ["06.png", "07-failing.png", "08.png"]
    assert len(list(listed.parent.glob("shard-*.h5"))) == 3
    summary, table = extract(folder, backbone="demo-vit", runtime=Runtime(shard_size=3, loaders=0))
    assert (summary.extracted, len(table)) == (3, 12)


def test_workers_of_an_interrupted_run_keep_what_they_have_done(pictures, extract, tmp_path, reporter, monkeypatch):
    runtime = {"shard_size": 15, "loaders": 0, "batch": 4}

    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reporter, "advance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(pictures, backbone="demo-vit", runtime=Runtime(workers=2, **runtime))
    assert len(list((tmp_path / "store").rglob("unfinished-*.h5"))) == 1
    assert "workers have kept what they had done" in reporter.notes[-1]
    extract(pictures, backbone="demo-vit", runtime=Runtime(**runtime))
    extract(pictures, backbone="demo-vit", out="calm", store="other", runtime=Runtime(**runtime))
    assert published(tmp_path / "out") == published(tmp_path / "calm")
