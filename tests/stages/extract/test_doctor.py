"""The commands that look at the machine and at what can be run on it."""

import json
import os
import resource
from pathlib import Path

import pytest
from click.testing import CliRunner
from extract_pictures import save

from pipeline.cli import ltdpipe
from stages.extract import settings
from stages.extract.registry import BACKBONES
from stages.extract.settings import Runtime, auto_loaders
from storage.errors import SettingError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LTDPIPE_WEIGHTS", str(tmp_path / "weights"))
    return lambda *arguments: CliRunner().invoke(ltdpipe, list(map(str, arguments)), catch_exceptions=False)


def test_doctor_tells_what_it_found_and_leaves_nothing(run, tmp_path):
    out = run("doctor").output
    for what in ("versions", "device", "cores", "image formats", "room", "disk speed", "locking  ", "weights"):
        assert what.strip() in out
    assert "locking        works" in out
    assert list(tmp_path.iterdir()) == []


def test_doctor_sees_a_disk_that_takes_nothing_more(run, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        out = run("doctor").output
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "64 MB cannot be written to" in out
    assert "LTDPIPE_STORE" in out
    assert list(tmp_path.iterdir()) == []


def test_backbones_lists_all_and_what_is_here(run, tmp_path):
    before = run("backbones").output
    assert all(name in before for name in BACKBONES)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ViT-B-32.pt").touch()
    lines = {line.split()[0]: line for line in run("backbones").output.splitlines()}
    assert lines["clip-vit-b-32"].rstrip().endswith("present")
    assert lines["siglip2-vit-b-16"].split()[-3] == "Apache-2.0"
    assert "patch-mean" in lines["siglip2-vit-b-16"]


def test_folder_called_by_dots_or_in_no_utf8_has_a_name_of_its_own_in_the_store(run, tiny, tmp_path, monkeypatch):
    inner = Path(os.fsdecode(bytes(tmp_path) + b"/pictures-\xff"), "inner")
    inner.mkdir(parents=True)
    save(inner / "0.png")
    monkeypatch.chdir(inner)
    rest = ("--out", tmp_path / "features", "--backbone", "tiny", "--weights", "random:0", "--loaders", 0)
    for folder in ("..", inner.parent):
        run("extract", folder, *rest)
    (index,) = (tmp_path / "store").glob("**/index.parquet")
    assert index.parent.name.startswith("pictures-\\xff-")
    for wrong in ("..", "a/b", ""):
        with pytest.raises(SettingError, match="cannot name a corpus; give a name without slashes with --corpus"):
            run("extract", inner, *rest, "--corpus", wrong)


def test_json_log_and_summary(run, tiny, folder, tmp_path):
    save(folder / "0_real/a.png")
    (folder / "0_real/b.png").write_text("x")
    (folder / "0_real/notes.txt").write_text("left out")
    result = run("extract", folder, "--out", tmp_path / "out", "--backbone", "tiny", "--weights", "random:0", "--json",
                 "--loaders", "0", "--views", "clean,val", "--blocks", "0-1")  # fmt: skip
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[-1] | {"rate": 0, "waiting_s": 0} == {
        "event": "progress", "what": "extract images", "unit": "images", "done": 2, "total": 2, "failed": 1, "rate": 0,
        "waiting_s": 0,
    }  # fmt: skip
    assert any("1 .txt" in event.get("text", "") for event in events)
    summary = json.loads(result.stdout)
    assert (summary["usable"], summary["views"]) == (1, {"clean": 2, "val": 2})
    assert list(summary["failed"]) == ["no image: the content is of no format that is read"]


@pytest.mark.parametrize(
    ("device", "cores", "share", "loaders"),
    [("cpu", 1, 1, 0), ("cpu", 2, 1, 1), ("cpu", 16, 1, 4), ("cpu", 16, 8, 1), ("cuda", 1, 1, 0), ("cuda", 8, 1, 7)],
)
def test_loaders_suit_the_machine(monkeypatch, device, cores, share, loaders):
    monkeypatch.setattr(settings, "cores", lambda: cores)
    assert auto_loaders(device, share=share) == loaders
    assert Runtime(workers=share).loaders_on(device) == loaders
    assert Runtime(workers=share, scheduler="tcp://elsewhere").loaders_on(device) == auto_loaders(device)
    assert Runtime(loaders=5).loaders_on(device) == 5
