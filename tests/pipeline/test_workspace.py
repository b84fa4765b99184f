"""Where images and records are looked for: in the project, below the data folders, and in an experiment's project."""

import pytest

from pipeline import workspace
from storage.errors import DataError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place in which the project, which is the working directory, and other folders lie."""
    for name in ("project", "data", "elsewhere/images"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("DVC_ROOT", "LTDPIPE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def test_images_are_found_below_the_variable_and_below_the_folder_that_a_profile_was_used_on(place, monkeypatch):
    with pytest.raises(DataError, match="set LTDPIPE_DATA to its parent"):
        workspace.images("images")
    monkeypatch.setenv("LTDPIPE_DATA", str(place / "elsewhere"))
    assert workspace.images("images") == place / "elsewhere" / "images"
    monkeypatch.delenv("LTDPIPE_DATA")
    (place / "data" / "images").mkdir()
    workspace.DATA_ROOT.parent.mkdir()
    workspace.DATA_ROOT.write_text(str(place / "data"))
    monkeypatch.setenv("DVC_ROOT", str(place / "project"))
    monkeypatch.chdir(place / "elsewhere")  # as in the copy that `dvc exp run --temp` works in
    assert workspace.images("images") == place / "elsewhere" / "images"
    (place / "elsewhere" / "images").rmdir()
    assert workspace.images("images").resolve() == place / "data" / "images"


def test_a_data_root_that_was_given_is_the_only_place(place):
    (place / "project" / "images").mkdir()
    with pytest.raises(DataError, match="give the folder that holds it with --data"):
        workspace.images("images", place / "data")
