"""What a scan says of roots that are wrong, what it leaves out, and what it writes."""

import os
import shutil

import fsspec
import miniatures
import pytest
import yaml
from click.testing import CliRunner
from miniatures import PROJECT, refusal, scanned

from pipeline.cli import ltdpipe
from stages.scan.classes import ClassPatterns
from stages.scan.run import run
from stages.scan.summary import ScanSummary
from storage.errors import DataError, SettingError
from storage.manifest import read_manifest
from storage.sources import Sources


def command(*arguments):
    return CliRunner().invoke(ltdpipe, ["scan", *map(str, arguments)])


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


@pytest.mark.parametrize(
    ("root", "reason"), [("nope://bucket/x", "Protocol not known: nope"), ("memory://nothing", "it is empty")]
)
def test_a_url_that_leads_nowhere(root, reason):
    with pytest.raises((SettingError, DataError), match=reason):
        run(corpus="mini", root=root, layout="auto")


def test_an_unknown_layout_is_a_setting_error(tmp_path):
    with pytest.raises(SettingError, match="layout 'imagenet' is not known; choose from auto, list, forensynths"):
        run(corpus="mini", root=tmp_path, layout="imagenet")


def test_sets_keep_the_order_asked_for_and_missing_ones_are_named(tmp_path):
    miniatures.aigcdetect(tmp_path)
    rows, summary = scanned(tmp_path, "aigcdetect", sets=("wukong", "progan", "sd_xl"))
    assert summary.sets == ("wukong", "progan")
    assert summary.warnings == ("set sd_xl was asked for and has no image",)
    assert len(rows) == 4
    refusal(tmp_path, "none of 32 images .*; it has the sets adm, biggan", sets=("b",))


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


def test_reals_that_no_set_needs_are_a_warning(tmp_path):
    miniatures.write(tmp_path, "root/real/1.png", "root/fake/1.png", "more/2.png")
    _, summary = scanned(tmp_path / "root", "folder", reals=tmp_path / "more")
    assert summary.warnings == (
        "1 image(s) are in no test set: they are real, and every set has real images of its own",
    )


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
    done = command(tmp_path / "root", "--sets", "ufd16", "--out", tmp_path / "manifest.parquet")
    assert done.exit_code == 0, done.output
    assert "\nlayout ufd: every folder fits the folders of ForenSynths" in done.output
    assert "ufd16, 10 of 16 sets" in done.output
    assert "warning: set biggan has no real image" in done.output
    assert "warning: set stargan was asked for and has no image" in done.output
    assert "sitd" not in set().union(*read_manifest(tmp_path / "manifest.parquet")["sets"].to_pylist())


def test_the_command_lists_the_splits_and_categories_asked_for(tmp_path):
    miniatures.forensynths(tmp_path / "root")
    done = command(tmp_path / "root", "--split", "train", "--category", "train", "--out", tmp_path / "manifest")
    assert done.exit_code == 0, done.output
    paths = read_manifest(tmp_path / "manifest")["path"].to_pylist()
    assert paths == ["train/train/0_real/4.png", "train/train/1_fake/3.png"]


def test_the_command_reads_params_and_both_roots(tmp_path, monkeypatch):
    miniatures.synthbuster(tmp_path / "data" / "sb", tmp_path / "data" / "raise")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTDPIPE_DATA", str(tmp_path / "data"))
    params = yaml.safe_load((PROJECT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    params["corpora"]["sb"] = {"root": "sb", "reals": "raise", "layout": "synthbuster", "sets": ["glide", "firefly"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    done = command("--corpus", "sb")
    assert done.exit_code == 0, done.exception
    assert "2 real, 2 synthetic; 2 sets: glide, firefly" in done.output
    assert read_manifest(tmp_path / "corpora" / "sb.parquet").num_rows == 4


def test_the_terminal_obeys_no_folder_name_and_many_sets_are_counted(tmp_path):
    miniatures.write(tmp_path, "root/fake/ring\x07/1.png", "root/fake/[bold]/1.png")
    done = command(tmp_path / "root")
    assert "2 sets: [bold], ring\\x07" in done.output
    assert "warning: set ring\\x07 has no real image" in done.output
    assert "\x07" not in done.output
    sets = tuple(f"s{number}" for number in range(41))
    assert str(ScanSummary(1, 1, 0, sets, {}, "folder")).endswith("41 sets: " + ", ".join(sets[:40]) + " and 1 more")


@pytest.mark.parametrize(
    ("archive", "member", "label", "generator"),
    [
        ("fake/sdxl-base-1.0.zip", "sdxl-base-1.0/val/1.png", 1, "sdxl-base-1.0"),
        ("fake/sdxl/SDXL.ZIP", "1.png", 1, "sdxl"),
        ("1_fake.zip", "1.png", 1, "mini"),
        ("real.tar", "deep/er/1.png", 0, None),
        ("fake/part-000012.tar", "1.png", 1, "mini"),
        ("fake/sd-v2.zip", "1.png", 1, "sd-v2"),
    ],
)
def test_archives_read_like_folders_and_shards_like_nothing(tmp_path, archive, member, label, generator):
    write = miniatures.pack if archive.lower().endswith("zip") else miniatures.tar_of
    content = miniatures.picture("x")
    write(tmp_path / archive, {member: content} if write is miniatures.pack else [(member, content)])
    ((path, row),) = scanned(tmp_path)[0].items()
    assert (path, row["label"], row["generator"]) == (f"{archive}!/{member}", label, generator)


def test_hidden_members_of_archives_are_left_out_and_others_found_as_they_are_spelled(tmp_path):
    content = miniatures.picture("x")
    hidden = ("real/.2.png", "__MACOSX/real/._1.png", ".trash/3.png", "fake/@eaDir/1.png")
    shown = ("./real/./4.png", "fake/1.PNG", "real/1.png")
    miniatures.pack(tmp_path / "all.zip", dict.fromkeys((*hidden, *shown, "notes.md"), content))
    rows, summary = scanned(tmp_path)
    assert list(rows) == [f"all.zip!/{name}" for name in shown]
    assert all(Sources.of(tmp_path).read(path) == content for path in rows)
    assert summary.sets == ("all",)
    assert summary.skipped == {"hidden": 4, ".md": 1}


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


def test_a_pattern_of_folders_and_what_it_names_that_is_not_there(tmp_path):
    miniatures.write(tmp_path, "real/1.png", "fake/sd/1.png", "fake/xl/1.png", "[x]/real/1.png")
    rows, summary = scanned(tmp_path / "{real,fake/{sd,dalle}}")
    assert {path: row["sets"] for path, row in rows.items()} == {"fake/sd/1.png": ["sd"], "real/1.png": ["sd"]}
    assert summary.warnings == (
        f"1 file(s) of {tmp_path}/{{real,fake/{{sd,dalle}}}} do not exist and were left out: fake/dalle",
    )
    refusal(tmp_path / "{real,nope}", "do not exist and were left out: nope .--strict", strict=True)
    rows, _ = scanned(
        tmp_path / "fake", reals=tmp_path / "{real,[[]x]/real}", classes=ClassPatterns(synthetic=["*"], real=["r*"])
    )
    assert list(rows) == ["@reals/[x]/real/1.png", "@reals/real/1.png", "sd/1.png", "xl/1.png"]
    refusal(tmp_path / "{a..b}.tar", "does not exist; expected a folder")
    refusal(tmp_path / "{1..2}.tar", r"2 missing file\(s\)")
    assert list(scanned(tmp_path / "[x]")[0]) == ["real/1.png"]  # what exists is no pattern


def test_commands_take_patterns_and_status_counts_what_changed_since_the_scan(tmp_path, monkeypatch):
    for number in range(2):
        miniatures.webdataset(tmp_path / "data" / "web" / f"{number:03d}.tar", {"cls": b"0"}, {"cls": b"1"})
    miniatures.write(tmp_path / "data", "mine/real/1.png", "mine/real/2.png", "mine/fake/1.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTDPIPE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))
    by_hand = ("data/web/{000..001}.tar", "--out", "features", "--backbone", "demo-vit", "--loaders", "0")
    done = CliRunner().invoke(ltdpipe, ["extract", *by_hand])
    assert "web: 4 images usable" in done.output, done.exception
    params = yaml.safe_load((PROJECT / "profiles" / "demo.yaml").read_text(encoding="utf-8"))
    params["corpora"] |= {"web": {"root": "web/{000..001}.tar"}, "mine": {"root": "mine"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for name in ("web", "mine"):
        assert command("--corpus", name).exit_code == 0

    def status(name):
        return CliRunner().invoke(ltdpipe, ["status", "--corpus", name]).output

    assert "since the scan" not in status("web") + status("mine")
    miniatures.write(tmp_path / "data", "mine/fake/2.png", "mine/fake/3.png")
    (tmp_path / "data" / "mine" / "real" / "1.png").unlink()
    os.utime(tmp_path / "data" / "mine" / "real" / "2.png", (1, 1))
    since = "images since the scan: 2 new, 1 gone, 1 of another size or time; `ltdpipe scan --corpus mine`"
    assert since in status("mine")
    done = CliRunner().invoke(ltdpipe, ["extract", "--corpus", "mine", "--loaders", "0"])
    assert f"mine: {since}" in done.output  # before it refuses what is gone
    assert "real/1.png is gone" in str(done.exception)
    shutil.rmtree(tmp_path / "data" / "mine" / "real")
    assert "images since the scan: 2 new, 2 gone" in status("mine")
    shutil.rmtree(tmp_path / "data" / "mine" / "fake")
    assert "cannot be scanned again: corpus 'mine': no image file below" in status("mine")
    shutil.rmtree(tmp_path / "data" / "mine")
    assert "scan" not in status("mine")
