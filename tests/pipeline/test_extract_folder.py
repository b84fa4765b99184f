"""`ltdpipe extract FOLDER`: what it says beforehand, and what it refuses before any work."""

from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from PIL import Image

from running import invoke, without_root_s_privilege

if TYPE_CHECKING:
    pass

HOSTILE = "gen\x1b[31m"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (f"fake/{HOSTILE}/0.png", "real/0.png", "real/1.png"):
        path = tmp_path / "pictures" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), place[:4].replace("fake", "red").replace("real", "blue")).save(path)
    (tmp_path / "pictures" / "more.rar").touch()
    return tmp_path / "pictures"


def extract(folder, out="features"):
    return invoke("extract", str(folder), "--out", out, "--backbone", "demo-vit", "--loaders", "0")


def test_what_scan_warns_of_and_names_are_shown_as_scan_shows_them(pictures):
    done = extract(pictures)
    assert done.exit_code == 0, done.output
    assert "warning: pictures: 1 archive(s) cannot be read in place" in done.output
    assert "\x1b" not in done.output
    assert "gen\\x1b[31m" in done.output


def test_names_are_printable_in_every_command_that_shows_one(pictures):
    folder = pictures.with_name(f"pictures{HOSTILE}")
    pictures.rename(folder)
    for arguments in (
        ["extract", str(folder), "--out", HOSTILE, "--backbone", "demo-vit", "--loaders", "0"],
        ["verify", HOSTILE],
        ["status", HOSTILE],
        ["store", "ls"],
        ["store", "prune"],
        ["scan", str(folder), "--out", f"{HOSTILE}.parquet"],
    ):
        done = invoke(*arguments)
        assert done.exit_code == 0, (arguments, done.output)
        assert "\x1b" not in done.output, arguments


@pytest.mark.parametrize("name", ["known", "nonsense"])
def test_a_corpus_beside_a_folder_is_refused(pictures, name):
    assert extract(pictures).exit_code == 0
    for command in ("verify", "status"):
        assert "leave one out" in str(invoke(command, "features", "--corpus", name).exception)


def test_a_folder_with_other_files_is_refused_before_any_work(pictures):
    (pictures.parent / "features" / "clean").mkdir(parents=True)
    (pictures.parent / "features" / "clean" / "letter.txt").write_text("mine")
    done = extract(pictures)
    assert "files of another origin (letter.txt)" in str(done.exception)
    assert not list(pictures.parent.rglob("shard-*"))
    assert (pictures.parent / "features" / "clean" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("forbidden", "says"),
    [
        ("real/0.png", ["1 failed: 1 unreadable", "unreadable: permission denied"]),
        ("real", ["real may not be read"]),
    ],
    ids=["a file is one failed image", "a folder is named"],
)
def test_what_may_not_be_read_is_no_traceback(pictures, forbidden, says):
    with ZipFile(pictures / "more.zip", "w") as archive:
        archive.write(pictures / "real" / "1.png", "real/2.png")
    (pictures / forbidden).chmod(0)
    out = pictures.parent / "features"
    arguments = (pictures, "--out", out, "--backbone", "demo-vit", "--loaders", "0", "--strict")
    command = "import sys; from pipeline.cli import main; main()"
    done = without_root_s_privilege(command, "extract", *arguments, LTDPIPE_STORE=str(out.parent / "store"))
    (pictures / forbidden).chmod(0o755)
    assert done.returncode == 3, done.stdout + done.stderr
    assert [line for line in says if line not in done.stdout + done.stderr] == []
    assert "Traceback" not in done.stderr
