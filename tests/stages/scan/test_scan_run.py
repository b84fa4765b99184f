"""What a scan says of roots that are wrong, what it leaves out, and what it writes."""

import os
from pathlib import Path

import fsspec
import miniatures
import pytest
import yaml
from click.testing import CliRunner

from pipeline.commands.data import scan
from stages.scan.assign import Selection
from stages.scan.folder import Folder
from stages.scan.run import ScanSummary, run
from storage.errors import DataError, SettingError
from storage.manifest import read_manifest
from storage.sources import Sources

PARAMS = Path(__file__).parents[3] / "profiles" / "demo.yaml"


def message(root, layout="auto", **options):
    with pytest.raises(DataError) as caught:
        run(corpus="mini", root=root, layout=layout, out=root.parent / "manifest.parquet", **options)
    assert not list(root.parent.glob("manifest.parquet*"))  # nothing half-written
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("nope", "/nope does not exist; expected a folder"),
        ("empty", "no image file below {}/empty (it is empty)"),
        ("notes", "(1 .md)"),
        ("images/fake/1.png", "1.png is a file; expected a folder of images, an archive"),
    ],
)
def test_a_root_without_images(tmp_path, root, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.md").write_text("x")
    miniatures.write(tmp_path, "images/fake/1.png")
    assert said.format(tmp_path) in message(tmp_path / root)
    assert said.format(tmp_path) in message(tmp_path / "images", reals=tmp_path / root)


def test_an_unknown_layout_is_a_setting_error(tmp_path):
    with pytest.raises(SettingError, match="layout 'imagenet' is not known; choose from auto, list, forensynths"):
        run(corpus="mini", root=tmp_path, layout="imagenet")


def test_what_was_asked_for_is_not_there(tmp_path):
    miniatures.write(tmp_path, "a/real/1.png", "a/fake/1.png")
    said = message(tmp_path / "a", selection=Selection(sets=("b",)))
    assert "none of 2 images" in said
    assert "it has the sets mini" in said


def test_sets_keep_the_order_asked_for_and_missing_ones_are_named(tmp_path):
    miniatures.aigcdetect(tmp_path)
    keep = Selection(sets=("wukong", "progan", "sd_xl"))
    table, summary = run(corpus="mini", root=tmp_path, layout="aigcdetect", selection=keep)
    assert summary.sets == ("wukong", "progan")
    assert summary.warnings == ("set sd_xl was asked for and has no image",)
    assert table.num_rows == 4


def test_links_hidden_files_and_unreadable_names(tmp_path):
    miniatures.write(tmp_path, "real/1.png", "fake/1.png", "real/.hidden.png", ".git/2.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "fake" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "Makefile").write_text("")
    os.mkfifo(tmp_path / "real" / "pipe.png")
    (tmp_path / "fake" / "1.png").rename(tmp_path / "fake" / os.fsdecode(b"\xff\\.png"))
    (tmp_path / "fake" / "linked").unlink()
    table, summary = run(corpus="mini", root=tmp_path, layout="folder")
    assert table["path"].to_pylist() == ["fake/\\xff\\\\.png", "real/1.png"]
    assert summary.skipped == {
        "hidden": 2,
        "circular link": 1,
        "dangling link": 1,
        "no extension": 1,
        "no regular file": 1,
    }


def test_archives_that_cannot_be_read_in_place_are_a_warning(tmp_path):
    miniatures.write(tmp_path, "real/1.png", "fake/1.png")
    (tmp_path / "train.tar.gz").write_bytes(b"x")
    (tmp_path / "imagenet.z01").write_bytes(b"x")
    _, summary = run(corpus="mini", root=tmp_path, layout="folder")
    assert any(warning.startswith("2 archive(s) cannot be read in place") for warning in summary.warnings)


def test_reals_that_no_set_needs_are_a_warning(tmp_path):
    miniatures.write(tmp_path, "root/real/1.png", "root/fake/1.png", "more/2.png")
    _, summary = run(corpus="mini", root=tmp_path / "root", layout="folder", reals=tmp_path / "more")
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
    file = tmp_path / "root" / manifest["path"][0].as_py()
    assert manifest["size_bytes"][0].as_py() == file.stat().st_size
    assert manifest["mtime_ns"][0].as_py() == file.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("root", "reason"), [("nope://bucket/x", "Protocol not known: nope"), ("memory://nothing", "it is empty")]
)
def test_a_url_that_leads_nowhere(root, reason):
    with pytest.raises((SettingError, DataError), match=reason):
        run(corpus="mini", root=root, layout="auto")


@pytest.mark.parametrize("name", ["part.parquet", "images.zip", "images.tar"])
def test_a_damaged_archive_alone_or_with_strict_is_named_and_nothing_is_written(tmp_path, name):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / name).write_bytes(b"damaged from the first byte to the last")
    text = f"archive {tmp_path / 'root' / name} cannot be read"
    assert text in message(tmp_path / "root")
    assert text in message(tmp_path / "root", strict=True)
    miniatures.write(tmp_path, "root/real/1.png", "root/fake/1.png")
    assert text in message(tmp_path / "root", strict=True)


def test_the_command_says_layout_sets_and_warnings(tmp_path):
    miniatures.ufd_archive(tmp_path / "root")
    miniatures.write(tmp_path, "root/biggan/1_fake/1.png")
    out = str(tmp_path / "manifest.parquet")
    result = CliRunner().invoke(scan, [str(tmp_path / "root"), "--sets", "ufd16", "--out", out])
    assert result.exit_code == 0, result.output
    assert "\nlayout ufd: every folder fits the folders of ForenSynths" in result.output
    assert "ufd16, 10 of 16 sets" in result.output
    assert "warning: set biggan has no real image" in result.output
    assert "warning: set stargan was asked for and has no image" in result.output
    assert "sitd" not in set().union(*read_manifest(tmp_path / "manifest.parquet")["sets"].to_pylist())


def test_the_command_reads_params_and_both_roots(tmp_path, monkeypatch):
    miniatures.synthbuster(tmp_path / "data" / "sb", tmp_path / "data" / "raise")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTDPIPE_DATA", str(tmp_path / "data"))
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    params["corpora"]["sb"] = {"root": "sb", "reals": "raise", "layout": "synthbuster", "sets": ["glide", "firefly"]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    result = CliRunner().invoke(scan, ["--corpus", "sb"])
    assert result.exit_code == 0, result.exception
    assert "2 real, 2 synthetic; 2 sets: glide, firefly" in result.output
    assert read_manifest(tmp_path / "corpora" / "sb.parquet").num_rows == 4


def test_the_terminal_obeys_no_folder_name(tmp_path):
    miniatures.write(tmp_path, "root/fake/ring\x07/1.png", "root/fake/[bold]/1.png")
    result = CliRunner().invoke(scan, [str(tmp_path / "root")])
    assert "2 sets: [bold], ring\\x07" in result.output
    assert "warning: set ring\\x07 has no real image" in result.output
    assert "\x07" not in result.output


@pytest.mark.parametrize(
    ("place", "folders"),
    [
        ("images/sdxl-base-1.0.zip!/sdxl-base-1.0/val", "images/sdxl-base-1.0/val"),
        ("sdxl/SDXL.ZIP!", "sdxl"),
        ("1_fake.zip!", "1_fake"),
        ("real.tar!/deep/er", "real/deep/er"),
        ("fake/train-000012.tar!", "fake/train"),
        ("fake/sd-v2.zip!", "fake/sd-v2"),
        ("fake/part-0.parquet!", "fake/part"),
        ("wow!/a.zip", "wow!/a.zip"),
    ],
)
def test_archives_read_like_folders_and_shards_like_nothing(place, folders):
    assert "/".join(Folder(place).folders) == folders


def test_hidden_members_of_archives_are_left_out_and_others_found_as_they_are_spelled(tmp_path):
    content = miniatures.picture("x")
    names = (
        "./real/./4.png",
        "real/1.png",
        "real/.2.png",
        "__MACOSX/real/._1.png",
        ".trash/3.png",
        "fake/1.PNG",
        "notes.md",
    )
    miniatures.pack(tmp_path / "all.zip", dict.fromkeys(names, content))
    table, summary = run(corpus="mini", root=tmp_path, layout="auto")
    paths = ["all.zip!/./real/./4.png", "all.zip!/fake/1.PNG", "all.zip!/real/1.png"]
    assert table["path"].to_pylist() == paths
    assert all(Sources.of(tmp_path).read(path) == content for path in paths)
    assert table["sets"].to_pylist() == [["all"]] * 3
    assert summary.skipped == {"hidden": 3, ".md": 1}


def test_a_url_leaves_out_hidden_folders_and_an_archive_beside_its_own_unpacked_folder_only(tmp_path):
    miniatures.write(tmp_path / "root", "a/1.png", ".trash/2.png", "c/d/3.png")
    for name in ("b/a.zip", "c/d.zip"):
        miniatures.pack(tmp_path / "root" / name, {"x/1.png": miniatures.picture(name)})
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "root"), "/walked", recursive=True)
    try:
        found = [run(corpus="mini", root=root, layout="unlabelled") for root in (tmp_path / "root", "memory://walked")]
    finally:
        memory.rm("/walked", recursive=True)
    for table, summary in found:
        assert table["path"].to_pylist() == ["a/1.png", "b/a.zip!/x/1.png", "c/d/3.png"]
        assert summary.skipped == {"hidden": 1, "archive beside its unpacked folder": 1}
    assert found[1][0]["mtime_ns"][0].as_py() > 0  # as the store states it


def test_the_command_lists_the_splits_and_categories_asked_for(tmp_path):
    miniatures.forensynths(tmp_path / "root")
    options = [str(tmp_path / "root"), "--split", "train", "--category", "train", "--out", str(tmp_path / "manifest")]
    assert CliRunner().invoke(scan, options).exit_code == 0
    manifest = read_manifest(tmp_path / "manifest")
    assert manifest["path"].to_pylist() == ["train/train/0_real/4.png", "train/train/1_fake/3.png"]


def test_a_summary_names_forty_sets_and_counts_the_others():
    sets = tuple(f"s{number}" for number in range(41))
    assert str(ScanSummary(1, 1, 0, sets[:40], {}, "folder")).endswith("40 sets: " + ", ".join(sets[:40]))
    assert str(ScanSummary(1, 1, 0, sets, {}, "folder")).endswith(", s39 and 1 more")
