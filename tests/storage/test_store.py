"""The store: where it is, what it says of itself, and what may go."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest
from synthetic import SPEC, extract, manifest, names, spec

from storage.atomic import lock_holder
from storage.corpus_folder import CorpusFolder
from storage.index import INDEX_NAME
from storage.store import (
    abandoned,
    corpus_folder,
    delete,
    images_per_second,
    project_root,
    reason_to_keep,
    store_root,
    stored_corpora,
    usage,
)

pytestmark = pytest.mark.usefixtures("own_store")
TABLE = manifest(names(10))


def only(store):
    (folder,) = stored_corpora(store)
    return folder


def free(folder, *, published=(), corpora=()):
    whose = str(project_root())
    return reason_to_keep(folder, published=published, corpora=corpora, owner=whose, own_store=False) is None


def test_the_store_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("LTDPIPE_STORE", "/somewhere")
    assert store_root() == Path("/somewhere")
    monkeypatch.delenv("LTDPIPE_STORE")
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert store_root() == Path("/project/.ltdpipe/store")
    monkeypatch.delenv("DVC_ROOT")
    assert store_root() == Path(".ltdpipe/store")


def test_a_folder_s_name_tells_corpora_projects_and_image_roots_apart(tmp_path):
    def named(project, roots="/images\n", corpus="toy", store=tmp_path / "shared"):
        return corpus_folder(store, corpus, SPEC, project=project and tmp_path / project, roots=roots).directory

    cases = [
        named("a"), named("b"), named("a", corpus="other"), named(None), named(None, roots="/other\n"),
        named("a", store=tmp_path / "a" / ".ltdpipe" / "store"),
    ]  # fmt: skip
    assert len(set(cases)) == len(cases)
    assert named("a") == named("a", roots="/moved\n")  # a project may move its images
    assert cases[-1].name == "toy"  # and itself, with its own store
    assert {case.parent.name for case in cases} == {SPEC.key}


def test_a_folder_says_what_it_holds(own_store, tmp_path):
    assert stored_corpora(tmp_path / "absent") == []
    extract(own_store, TABLE, out=tmp_path / "out", broken={"fake/003.png"})
    extract(own_store, TABLE, corpus="other", spec=spec(precision="fp16"))
    (own_store / f"{SPEC.key}.old" / "toy").mkdir(parents=True)  # no feature key
    (toy,) = stored_corpora(own_store, "toy")
    assert (toy.corpus, toy.owner, toy.spec) == ("toy", str(project_root()), SPEC)
    ((_, rows),) = toy.rows("row")
    assert (len(rows), rows["row"].null_count) == (10, 1)
    places = (toy.directory, tmp_path / "out")
    assert usage(toy) == tuple(sum(path.stat().st_size for path in place.iterdir()) for place in places)
    assert [usage(folder)[1] for folder in stored_corpora(own_store, "other")] == [0]
    assert len(stored_corpora(own_store)) == 2


def test_damaged_shards_and_sidecars_are_named(own_store):
    extract(own_store, TABLE)
    folder = own_store / SPEC.key / "toy"
    (folder / "shard-00000.h5").unlink()
    (folder / "shard-00001.rows").write_text("damaged")
    assert [path.name for path in only(own_store).faults] == ["shard-00000.h5", "shard-00001.rows"]
    assert sum(only(own_store).images.values()) == 2


@pytest.mark.parametrize(
    ("size", "times", "rate"),
    [
        (4, [1000, 1002, 1003], 6 / 3),  # shards of 4, 4 and 2 images
        (4, [1000, 5000, 5004], 2 / 4),  # a night between the first and the second
        (4, [1000, 5000, 9000], None),
        (2, [1000, 1600, 2200, 2800, 3400], 8 / 2400),  # ten minutes are no pause
        (2, [1000, 1601, 1602, 2203, 2204], 2 / 1),
        (1, [1000, 1500, *range(2000, 2010)], 1),  # the last ten shards
    ],
)
def test_the_rate_is_that_of_the_last_shards_without_pauses(own_store, size, times, rate):
    extract(own_store, manifest(names(12 if size == 1 else 10)), size=size)
    for number, seconds in enumerate(times):
        os.utime(own_store / SPEC.key / "toy" / f"shard-{number:05d}.rows", (seconds, seconds))
    assert images_per_second(only(own_store)) == (None if rate is None else pytest.approx(rate))


def test_the_process_at_work_is_named_and_nothing_is_deleted_under_it(own_store):
    extract(own_store, TABLE)
    folder = only(own_store)
    with (folder.directory / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as another `ltdpipe status` does
        assert lock_holder(folder.directory) is None
    with CorpusFolder(folder.directory, SPEC).lock(print):
        before = sorted(folder.directory.iterdir())
        assert lock_holder(folder.directory) == str(os.getpid())
        assert not free(folder)
        assert not delete(folder)
        assert sorted(folder.directory.iterdir()) == before
    assert delete(folder)
    assert not (own_store / SPEC.key).exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_is_gone_when_it_is_looked_at_is_no_error(own_store, monkeypatch, when):
    """``status`` is asked for while a process writes: its partial files get their names at any moment."""
    extract(own_store, TABLE)
    partial = own_store / SPEC.key / "toy" / "shard-00003.h5.1.partial"
    partial.write_text("half")
    look = Path.stat

    def renamed(path, **options):
        if path == partial and when == "before":
            partial.unlink()
        status = look(path, **options)
        if path == partial and when == "after":
            partial.unlink()
        return status

    monkeypatch.setattr(Path, "stat", renamed)
    assert usage(only(own_store))[0]
    assert not partial.exists()


def test_published_and_unfinished_features_are_kept_and_the_rest_may_go(own_store, tmp_path):
    extract(own_store, TABLE, out=tmp_path / "out")
    extract(own_store, TABLE, corpus="other")
    (toy,) = stored_corpora(own_store, "toy")
    assert not free(toy)  # linked
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert not free(toy, published={SPEC.key})
    assert free(toy)
    others = {"published": (), "corpora": (), "owner": "/another/project", "own_store": False}
    assert reason_to_keep(toy, **others) == f"belongs to {project_root()}"
    toy.owner = None  # no owner.json
    assert "nothing says whose it is" in reason_to_keep(toy, **others)
    assert reason_to_keep(toy, **others | {"own_store": True}) is None
    (toy.directory / INDEX_NAME).unlink()
    (toy,) = stored_corpora(own_store, "toy")
    assert not free(toy, corpora={"toy"})
    assert free(toy, corpora={"other"})
    delete(toy)
    assert [folder.corpus for folder in stored_corpora(own_store)] == ["other"]
    assert extract(own_store, TABLE, out=tmp_path / "out")[1] == names(10)


def test_trainings_are_given_up_after_a_week(own_store):
    folder = own_store / "training"
    (folder / "folder").mkdir(parents=True)
    for name, days in (("old", 7.1), ("older", 30), ("resting", 6.9), ("folder", 30)):
        if name != "folder":
            (folder / name).touch()
        os.utime(folder / name, (time.time() - days * 24 * 3600,) * 2)
    assert abandoned(folder) == [folder / "old", folder / "older"]


def test_settings_are_described_in_words():
    assert SPEC.describe() == (
        "toy (quickgelu, weights 00000000, fp32), cls+embedding+attention of blocks 1..4 of 6; "
        "augmentation none, decoder none, geometry toy"
    )
    assert "blocks 1, 3, 4 of 6" in spec(stored_blocks=(1, 3, 4)).describe()
