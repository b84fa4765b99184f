"""Publication, and the small file that stands for a corpus's features: it changes when any of them does."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from synthetic import extract, manifest, names

from storage.errors import ResourceError
from storage.index import INDEX_NAME
from storage.publish import restore, write_contents


def test_the_old_index_goes_before_any_shard_and_the_folder_is_synced_last(own_store, tmp_path, monkeypatch):
    out, done = tmp_path / "out", []
    extract(own_store, manifest(names(10)), out=out)
    unlink = Path.unlink

    def noted(path, missing_ok=False):
        if path.parent == out and path.exists():
            done.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    monkeypatch.setattr("storage.publish.fsync", lambda path: done.append(sorted(file.name for file in path.iterdir())))
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
    assert restore(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "new"


def test_a_target_that_may_not_be_written_to_is_not_copied_to_either(tmp_path, monkeypatch):
    refuse_links(monkeypatch, errno.EACCES)
    (tmp_path / "source").write_text("new")
    with pytest.raises(ResourceError, match="permission denied"):
        restore(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.fixture
def features(tmp_path):
    for view in ("clean", "jpeg-70"):
        folder = tmp_path / "features" / view
        folder.mkdir(parents=True)
        for name in ("index", "shard-00000", "shard-00001"):
            (folder / f"{name}.parquet").write_text(f"{view} {name}")
    (tmp_path / "features" / "unfinished").mkdir()
    return tmp_path / "features"


def contents(features):
    out = features.parent / "contents.json"
    write_contents(features, out)
    return out.read_bytes()


def test_every_index_and_sidecar_of_every_view_is_named(features):
    found = json.loads(contents(features))
    files = ["index.parquet", "shard-00000.parquet", "shard-00001.parquet"]
    assert {view: list(hashes) for view, hashes in found.items()} == {"clean": files, "jpeg-70": files}


@pytest.mark.parametrize("changed", ["clean/index.parquet", "jpeg-70/shard-00001.parquet"])
def test_it_changes_with_each_of_them_and_comes_back_with_their_bytes(features, changed):
    before, text = contents(features), (features / changed).read_text()
    (features / changed).write_text("other rows")
    assert contents(features) != before
    (features / changed).write_text(text)
    assert contents(features) == before


def test_it_does_not_depend_on_where_or_when_the_features_were_made(features, tmp_path):
    copied = shutil.copytree(features, tmp_path / "elsewhere" / "features")
    assert contents(copied) == contents(features)
