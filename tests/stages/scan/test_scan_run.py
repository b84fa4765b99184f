"""What a scan says of roots that are wrong, what it leaves out, and what it writes."""

import os
import shutil

import fsspec
import miniatures
import pytest
import yaml
from miniatures import refusal, scanned

from running import demo_params, invoke
from stages.scan.run import run
from storage.manifest import read_manifest
from storage.sources import Sources


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("nope", "/nope does not exist; expected a folder"),
        ("empty", r"no image file below .*/empty \(it is empty\)"),
        ("notes", r"\(1 .md\)"),
        ("images/fake/1.png", "1.png is a file; expected a folder of images, an archive"),
    ],
)
def test_a_root_without_images(tmp_path, root, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.md").write_text("x")
    miniatures.write(tmp_path, "images/fake/1.png")
    refusal(tmp_path / root, said, out=tmp_path / "manifest.parquet")
    refusal(tmp_path / "images", said, reals=tmp_path / root, out=tmp_path / "manifest.parquet")
    assert not list(tmp_path.glob("manifest.parquet*"))  # nothing half-written


def test_links_hidden_files_system_folders_and_unreadable_names(tmp_path):
    systems = ["@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX", ".thumbnails"]
    miniatures.write(tmp_path, "real/1.png", "fake/1.png", "real/.hidden.png", ".git/2.png")
    miniatures.write(tmp_path, *(f"real/{name}/1.png" for name in systems), "@eaDir/fake/1.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "real" / "Makefile").write_text("")
    (tmp_path / "train.tar.gz").write_bytes(b"x")
    os.mkfifo(tmp_path / "real" / "pipe.png")
    (tmp_path / "fake" / "1.png").rename(tmp_path / "fake" / os.fsdecode(b"\xff\\.png"))
    rows, summary = scanned(tmp_path, "folder")
    assert list(rows) == ["fake/\\xff\\\\.png", "real/1.png"]
    assert summary.skipped == {
        "hidden": 3 + len(systems),
        "circular link": 1,
        "dangling link": 1,
        "no extension": 1,
        "no regular file": 1,
        "archive that has to be unpacked first": 1,
    }
    assert summary.warnings[0].startswith("1 archive(s) cannot be read in place")


def test_the_manifest_is_sorted_and_the_same_twice(tmp_path, reporter):
    miniatures.forensynths(tmp_path / "root")
    for name in ("first", "second"):
        run(corpus="mini", root=tmp_path / "root", layout="auto", out=tmp_path / name, reporter=reporter)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    manifest = read_manifest(tmp_path / "first")
    assert manifest["path"].to_pylist() == sorted(manifest["path"].to_pylist())
    assert reporter.done == 2 * manifest.num_rows
    status = (tmp_path / "root" / manifest["path"][0].as_py()).stat()
    assert manifest.select(["size_bytes", "mtime_ns"]).to_pylist()[0] == {
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


def test_the_command_says_layout_sets_and_warnings(tmp_path):
    miniatures.ufd_archive(tmp_path / "root")
    miniatures.write(tmp_path, "root/biggan/1_fake/1.png")
    done = invoke("scan", tmp_path / "root", "--sets", "ufd16", "--out", tmp_path / "manifest.parquet")
    assert done.exit_code == 0, done.output
    assert "\nlayout ufd: every folder fits the folders of ForenSynths" in done.output
    assert "ufd16, 10 of 16 sets" in done.output
    assert "warning: set biggan has no real image" in done.output
    assert "warning: set stargan was asked for and has no image" in done.output
    assert "sitd" not in set().union(*read_manifest(tmp_path / "manifest.parquet")["sets"].to_pylist())


@pytest.mark.parametrize(
    ("archive", "member", "label", "generator"),
    [
        ("fake/sdxl-base-1.0.zip", "sdxl-base-1.0/val/1.png", 1, "sdxl-base-1.0"),
        ("1_fake.zip", "1.png", 1, "mini"),
        ("real.tar", "deep/er/1.png", 0, None),
        ("fake/part-000012.tar", "1.png", 1, "mini"),
    ],
)
def test_archives_read_like_folders_and_shards_like_nothing(tmp_path, archive, member, label, generator):
    write = miniatures.pack if archive.lower().endswith("zip") else miniatures.tar_of
    content = miniatures.picture("x")
    write(tmp_path / archive, {member: content} if write is miniatures.pack else [(member, content)])
    ((path, row),) = scanned(tmp_path)[0].items()
    assert (path, row["label"], row["generator"]) == (f"{archive}!/{member}", label, generator)


def test_a_url_leaves_out_hidden_folders_and_an_archive_beside_its_own_unpacked_folder_only(tmp_path):
    miniatures.write(tmp_path / "root", "a/1.png", ".trash/2.png", "c/d/3.png")
    for name in ("b/a.zip", "c/d.zip"):
        miniatures.pack(tmp_path / "root" / name, {"x/1.png": miniatures.picture(name)})
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "root"), "/walked", recursive=True)
    try:
        found = [scanned(root, "unlabelled") for root in (tmp_path / "root", "memory://walked")]
    finally:
        memory.rm("/walked", recursive=True)
    for rows, summary in found:
        assert list(rows) == ["a/1.png", "b/a.zip!/x/1.png", "c/d/3.png"]
        assert summary.skipped == {"hidden": 1, "archive beside its unpacked folder": 1}
    assert found[1][0]["a/1.png"]["mtime_ns"] > 0  # as the store states it


@pytest.mark.parametrize(
    ("where", "pattern"),
    [
        *(("", pattern) for pattern in ("{000..002}.tar", "{000,001,002}.tar", "*.tar", "0*[02].tar")),
        *(("memory://shards/", pattern) for pattern in ("{000..002}.tar", "*.tar")),
    ],
)
def test_patterns_of_archives(tmp_path, monkeypatch, where, pattern):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        miniatures.webdataset(tmp_path / f"00{number}.tar", {"cls": b"0"}, {"cls": b"1"})
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/", "/shards/", recursive=True)
    rows, summary = scanned(f"{where}{pattern}")
    memory.rm("/shards", recursive=True)
    numbers = "02" if "[" in pattern else "012"
    assert list(rows) == [f"00{number}.tar!/00000{image}.png" for number in numbers for image in range(2)]
    assert [row["label"] for row in rows.values()] == [0, 1] * len(numbers)
    assert (summary.sets, summary.layout) == (("mini",), "folder")
    if not where:
        assert Sources.of(pattern).read("002.tar!/000001.png") == miniatures.picture("1")


def test_commands_take_patterns_and_status_counts_what_changed_since_the_scan(tmp_path, monkeypatch):
    for number in range(2):
        miniatures.webdataset(tmp_path / "data" / "web" / f"{number:03d}.tar", {"cls": b"0"}, {"cls": b"1"})
    miniatures.write(tmp_path / "data", "mine/real/1.png", "mine/real/2.png", "mine/fake/1.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTDPIPE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))
    by_hand = ("data/web/{000..001}.tar", "--out", "features", "--backbone", "demo-vit", "--loaders", "0")
    done = invoke("extract", *by_hand)
    assert "web: 4 images usable" in done.output, done.exception
    params = demo_params()
    params["corpora"] |= {"web": {"root": "web/{000..001}.tar"}, "mine": {"root": "mine"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for name in ("web", "mine"):
        assert invoke("scan", "--corpus", name).exit_code == 0

    def status(name):
        return invoke("status", "--corpus", name).output

    assert "since the scan" not in status("web") + status("mine")
    miniatures.write(tmp_path / "data", "mine/fake/2.png", "mine/fake/3.png")
    (tmp_path / "data" / "mine" / "real" / "1.png").unlink()
    os.utime(tmp_path / "data" / "mine" / "real" / "2.png", (1, 1))
    since = "images since the scan: 2 new, 1 gone, 1 of another size or time; `ltdpipe scan --corpus mine`"
    assert since in status("mine")
    done = invoke("extract", "--corpus", "mine", "--loaders", "0")
    assert f"mine: {since}" in done.output  # before it refuses what is gone
    assert "real/1.png is gone" in str(done.exception)
    shutil.rmtree(tmp_path / "data" / "mine" / "real")
    assert "images since the scan: 2 new, 2 gone" in status("mine")
    shutil.rmtree(tmp_path / "data" / "mine" / "fake")
    assert "cannot be scanned again: corpus 'mine': no image file below" in status("mine")
    shutil.rmtree(tmp_path / "data" / "mine")
    assert "scan" not in status("mine")
