"""The small file that stands for a corpus's features changes when any of them does, and with nothing else."""

import json
import shutil

import pytest

from storage.publish import write_contents


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
