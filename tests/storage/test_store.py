"""The store: where it is, what it says of itself, and what may go."""

import os
from pathlib import Path

import pytest
from synthetic import SPEC, extract, manifest, names

from storage.atomic import lock_holder
from storage.corpus_folder import CorpusFolder
from storage.index import INDEX_NAME
from storage.store import (
    corpus_folder,
    delete,
    project_root,
    reason_to_keep,
    store_root,
    stored_corpora,
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


def test_damaged_shards_and_sidecars_are_named(own_store):
    extract(own_store, TABLE)
    folder = own_store / SPEC.key / "toy"
    (folder / "shard-00000.h5").unlink()
    (folder / "shard-00001.rows").write_text("damaged")
    assert [path.name for path in only(own_store).faults] == ["shard-00000.h5", "shard-00001.rows"]


def test_the_process_at_work_is_named_and_nothing_is_deleted_under_it(own_store):
    extract(own_store, TABLE)
    folder = only(own_store)
    with CorpusFolder(folder.directory, SPEC).lock(print):
        before = sorted(folder.directory.iterdir())
        assert lock_holder(folder.directory) == str(os.getpid())
        assert not free(folder)
        assert not delete(folder)
        assert sorted(folder.directory.iterdir()) == before
    assert delete(folder)
    assert not (own_store / SPEC.key).exists()
