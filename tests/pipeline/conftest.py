"""A project of the demo study, in which commands run."""

import shutil

import pytest

from running import PROJECT, commit, git


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder under git, with params.yaml and the profiles alone; it is the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECT / "profiles", folder / "profiles")
    shutil.copy(PROJECT / "profiles" / "demo.yaml", folder / "params.yaml")
    git(folder, "init", "-q")
    commit(folder, "start")
    monkeypatch.chdir(folder)
    return folder
