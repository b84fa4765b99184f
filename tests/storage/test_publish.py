"""Publication, and the small file that stands for a corpus's features: it changes when any of them does."""

import errno
import json
import os
from pathlib import Path

import pytest
from synthetic import extract, manifest, names

from storage.corpus_folder import link
from storage.index import INDEX_NAME, write_contents


def test_the_old_index_goes_before_any_shard_and_the_folder_is_synced_last(own_store, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    extract(own_store, manifest(names(10)), out=out)
    unlink = Path.unlink

    def noted(path, missing_ok=False):
        if path.parent == out and path.exists():
            done.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    monkeypatch.setattr(
        "storage.corpus_folder.fsync", lambda path: done.append(sorted(file.name for file in path.iterdir()))
    )
    extract(own_store, manifest(names(4)), out=out)
    first, *removed, kept = done
    assert first == INDEX_NAME
    assert sorted(removed) == [f"shard-0000{n}.{end}" for n in (1, 2) for end in ("h5", "parquet")]
    assert kept == [INDEX_NAME, "shard-00000.h5", "shard-00000.parquet"]


def refuse_links(monkeypatch, number):
    def refused(source, target):
        raise OSError(number, os.strerror(number), source, None, target)

    monkeypatch.setattr(os, "link", refused)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS])
def test_where_no_link_is_possible_the_file_is_copied(tmp_path, monkeypatch, number):
    refuse_links(monkeypatch, number)
    (tmp_path / "source").write_text("new")
    (tmp_path / "target").write_text("old")
    assert link(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"


def test_a_link_that_is_refused_in_any_words_becomes_a_copy(tmp_path, monkeypatch):
    refuse_links(monkeypatch, errno.EACCES)
    (tmp_path / "source").write_text("new")
    assert link(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"


def contents(features):
    write_contents(features, features / "contents.json")
    return json.loads((features / "contents.json").read_text())


@pytest.mark.parametrize("column", ["label", "generator", "split", "sets", "category"])
def test_the_fingerprint_changes_with_what_later_stages_read(tmp_path, own_store, column):
    values = {"label": None, "generator": "b", "split": "test", "sets": ["b"], "category": "b"}
    extract(own_store, manifest(names(3)), out=tmp_path / "features" / "clean")
    before = contents(tmp_path / "features")
    extract(own_store, manifest(names(3), **{column: values[column]}), out=tmp_path / "features" / "clean")
    assert contents(tmp_path / "features") != before


def test_the_fingerprint_holds_no_time(tmp_path, own_store):
    extract(own_store, manifest(names(3)), out=tmp_path / "features" / "clean")
    before = contents(tmp_path / "features")
    extract(own_store, manifest(names(3), mtime_ns=8), corpus="other", out=tmp_path / "features" / "clean")
    assert contents(tmp_path / "features") == before
    assert list(before) == ["clean"]
