from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest
from synthetic import SPEC, extract, manifest, names, spec

from storage.corpus_folder import CorpusFolder
from storage.errors import DataError
from storage.locks import lock_holder
from storage.store import (
    abandoned_trainings,
    delete,
    images_per_second,
    project_root,
    reason_to_keep,
    stored_corpora,
    usage,
)

pytestmark = pytest.mark.usefixtures("own_store")
TABLE = manifest(names(10))


def only(store):
    (entry,) = stored_corpora(store)
    return entry


def free(entry, *, published=(), corpora=()):
    whose = str(project_root())
    return reason_to_keep(entry, published=published, corpora=corpora, owner=whose, own_store=False) is None


def test_an_absent_store_holds_nothing(tmp_path):
    assert stored_corpora(tmp_path / "absent") == []


def test_an_entry_says_what_it_holds(own_store, tmp_path):
    extract(own_store, TABLE, out=tmp_path / "out", broken={"fake/003.png"})
    extract(own_store, TABLE, corpus="other", spec=spec(precision="fp16"))
    first, second = sorted(stored_corpora(own_store), key=lambda entry: entry.corpus == "toy", reverse=True)
    assert (first.corpus, first.spec) == ("toy", SPEC)
    assert (len(first.rows), first.rows["row"].null_count) == (10, 1)
    assert usage(first) == tuple(
        sum(path.stat().st_size for path in each.iterdir()) for each in (first.directory, tmp_path / "out")
    )
    assert (second.corpus, usage(second)[1]) == ("other", 0)
    assert [entry.corpus for entry in stored_corpora(own_store, "other")] == ["other"]


def test_damaged_shards_and_sidecars_are_named(own_store):
    extract(own_store, TABLE)
    folder = own_store / SPEC.key / "toy"
    (folder / "shard-00000.h5").unlink()
    (folder / "shard-00001.parquet").write_text("damaged")
    entry = only(own_store)
    assert [path.name for path in entry.faults] == ["shard-00000.h5", "shard-00001.parquet"]
    assert len(entry.rows) == 2


def finish_at(folder, *times):
    for number, seconds in enumerate(times):
        os.utime(folder / f"shard-{number:05d}.parquet", (seconds, seconds))


def test_the_rate_is_that_of_the_last_shards_without_pauses(own_store):
    extract(own_store, TABLE)  # shards of 4, 4 and 2 images
    folder = own_store / SPEC.key / "toy"
    finish_at(folder, 1000, 1002, 1003)
    assert images_per_second(only(own_store)) == pytest.approx(6 / 3)
    finish_at(folder, 1000, 5000, 5004)  # a night between the first and the second
    assert images_per_second(only(own_store)) == pytest.approx(2 / 4)
    finish_at(folder, 1000, 5000, 9000)
    assert images_per_second(only(own_store)) is None


def test_a_pause_is_longer_than_ten_minutes_and_only_the_time_since_the_last_counts(own_store):
    extract(own_store, TABLE, size=2)  # five shards of two images
    folder = own_store / SPEC.key / "toy"
    finish_at(folder, 1000, 1600, 2200, 2800, 3400)
    assert images_per_second(only(own_store)) == pytest.approx(8 / 2400)
    finish_at(folder, 1000, 1601, 1602, 2203, 2204)
    assert images_per_second(only(own_store)) == pytest.approx(2 / 1)


def test_the_rate_is_that_of_ten_shards(own_store):
    extract(own_store, manifest(names(12)), size=1)
    finish_at(own_store / SPEC.key / "toy", 1000, 1500, *range(2000, 2010))
    assert images_per_second(only(own_store)) == pytest.approx(1)


def test_who_only_looks_is_no_process_at_work(own_store):
    extract(own_store, TABLE)
    with (own_store / SPEC.key / "toy" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as another `ltdpipe status` does
        assert lock_holder(only(own_store).directory) is None


def test_trainings_are_given_up_after_a_week(own_store):
    folder = own_store / "training"
    (folder / "folder").mkdir(parents=True)
    for name, days in (("old", 7.1), ("older", 30), ("resting", 6.9), ("folder", 30)):
        if name != "folder":
            (folder / name).touch()
        os.utime(folder / name, (time.time() - days * 24 * 3600,) * 2)
    assert abandoned_trainings(folder) == [folder / "old", folder / "older"]


def test_folders_that_are_no_feature_keys_are_passed_over(own_store):
    extract(own_store, TABLE)
    (own_store / f"{SPEC.key}.old" / "toy").mkdir(parents=True)
    assert only(own_store).spec.key == SPEC.key


def test_the_process_at_work_is_named(own_store):
    extract(own_store, TABLE)
    assert lock_holder(only(own_store).directory) is None
    with CorpusFolder(own_store / SPEC.key / "toy", SPEC).lock(lambda _: None):
        assert lock_holder(only(own_store).directory) == str(os.getpid())
        assert not free(only(own_store))


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


def test_published_features_are_kept_whether_linked_or_copied(own_store, tmp_path):
    extract(own_store, TABLE, out=tmp_path / "out")
    assert not free(only(own_store))
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert not free(only(own_store), published={SPEC.key})
    assert free(only(own_store))


def test_unfinished_work_is_kept_while_its_corpus_is_in_the_project(own_store):
    extract(own_store, TABLE)
    (own_store / SPEC.key / "toy" / "index.parquet").unlink()
    assert not free(only(own_store), corpora={"toy"})
    assert free(only(own_store), corpora={"other"})


def test_what_is_deleted_is_gone_and_its_neighbours_stay(own_store):
    extract(own_store, TABLE)
    extract(own_store, TABLE, corpus="other")
    toy, other = sorted(stored_corpora(own_store), key=lambda entry: entry.corpus, reverse=True)
    delete(toy)
    assert [entry.corpus for entry in stored_corpora(own_store)] == ["other"]
    delete(other)
    assert not (own_store / SPEC.key).exists()


def test_nothing_is_deleted_under_a_process_that_has_begun_since(own_store):
    extract(own_store, TABLE)
    entry = only(own_store)
    before = sorted(entry.directory.iterdir())
    with CorpusFolder(entry.directory, SPEC).lock(lambda _: None):
        assert not delete(entry)
        assert lock_holder(entry.directory) == str(os.getpid())
    assert sorted(entry.directory.iterdir()) == before
    assert delete(entry)


def test_a_deleted_corpus_is_extracted_anew(own_store, tmp_path):
    extract(own_store, TABLE, out=tmp_path / "out")
    delete(only(own_store))
    assert extract(own_store, TABLE, out=tmp_path / "out")[1] == names(10)


def test_settings_are_told_in_words():
    assert SPEC.describe() == (
        "toy (quickgelu, weights 00000000, fp32), cls+embedding+grid of blocks 1..4 of 6; "
        "augmentation none, decoder none, geometry toy"
    )
    assert "blocks 1, 3, 4 of 6" in spec(stored_blocks=(1, 3, 4)).describe()


def test_a_mixture_of_keys_in_one_folder_is_refused(own_store):
    extract(own_store, TABLE)
    with pytest.raises(DataError, match="precision: fp16 here, fp32 there"):
        CorpusFolder(own_store / SPEC.key / "toy", spec(precision="fp16")).clean(lambda _: None)
