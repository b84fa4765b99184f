"""Archives as people bring them: what cannot be read is one failed row, and nothing in one is lost without a word."""

import io
import re
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections import Counter

import miniatures
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from miniatures import FIELD, labels, refusal, scanned, tar_of, webdataset

from running import invoke
from stages.audit.run import run as audit
from stages.predict.inputs import find_images
from storage.errors import DataError
from storage.index import read_index
from storage.manifest import read_manifest
from storage.sources import Sources

SOUND = ["fake/1.png", "fake/2.png", "real/1.png", "real/2.png"]


def entry(kind, target=""):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def images(count=4):
    return [(f"{number}.png", miniatures.picture(f"in a tar {number}")) for number in range(count)]


def whole(name):
    """The bytes of a sound archive, and where the third member of a tar begins."""
    file, third = io.BytesIO(), 0
    if name.endswith("zip"):
        with zipfile.ZipFile(file, "w") as archive:
            for member, content in images():
                archive.writestr(member, content)
    elif name.endswith("parquet"):
        pq.write_table(pa.table({"image": [b"one", b"two"]}), file)
    else:
        with tarfile.open(fileobj=file, mode="w:gz" if name == "compressed.tar" else "w") as archive:
            for member, content in images():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            third = archive.getmembers()[2].offset
    return file.getvalue(), third


def encrypted(content, _):
    content = bytearray(content)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    return bytes(content)


def broken_footer(content, _):
    length = struct.unpack("<i", content[-8:-4])[0]
    return content[: -8 - length] + b"\xee" * length + content[-8:]


# Name -> what is done to a sound archive of this kind.
DAMAGED = {
    "cut.zip": lambda content, _: content[:-30],
    "encrypted.zip": encrypted,
    "cut.tar": lambda content, _: content[:1200],
    "between.tar": lambda content, third: content[:third],
    "header.tar": lambda content, third: content[:third] + b"?" * 100 + content[third + 100 :],
    "compressed.tar": lambda content, _: content,
    "cut.parquet": lambda content, _: content[:-9],
    "footer.parquet": broken_footer,
}


def damaged(folder, *names):
    for name in names:
        (folder / name).write_bytes(DAMAGED[name](*whole(name)))


@pytest.fixture
def folder(tmp_path):
    miniatures.write(tmp_path / "root", *SOUND)
    return tmp_path / "root"


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_archive_is_one_row_beside_the_others(folder, name):
    damaged(folder, name)
    rows, summary = scanned(folder)
    assert sorted(rows) == sorted([*SOUND, name])
    assert (rows[name]["label"], rows[name]["sets"], rows[name]["split"]) == (None, [], None)
    assert rows[name]["size_bytes"] == (folder / name).stat().st_size
    (warning,) = summary.warnings
    said = f"1 archive(s) cannot be read, each is one failed image: {name} (archive {folder / name} "
    assert warning[: len(said)] == said
    assert "\n" not in warning
    with pytest.raises(DataError):
        Sources.of(folder).read(name)


def test_a_damaged_archive_alone_or_with_strict_is_named_and_nothing_is_written(folder, tmp_path):
    damaged(folder, "cut.zip")
    done = invoke("scan", folder, "--out", tmp_path / "m.parquet", "--strict")
    assert done.exception.exit_code == 3
    assert f"archive {folder}/cut.zip cannot be read" in str(done.exception)
    assert not (tmp_path / "m.parquet").exists()
    assert invoke("scan", folder, "--out", tmp_path / "m.parquet").exit_code == 0
    assert read_manifest(tmp_path / "m.parquet").num_rows == 5
    (tmp_path / "alone").mkdir()
    shutil.copy(folder / "cut.zip", tmp_path / "alone")
    refusal(tmp_path / "alone", "archive .* cannot be read")
    refusal(tmp_path / "alone" / "cut.zip", "archive .* cannot be read")


def test_extraction_and_audit_go_on_without_damaged_archives(folder, tmp_path, monkeypatch, reporter):
    miniatures.pack(folder / "late.zip", {"fake/3.png": miniatures.picture("late")})
    options = ("--backbone", "demo-vit", "--loaders", 0)
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))
    assert invoke("extract", folder, "--out", tmp_path / "sound", *options).exit_code == 0
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "another"))
    damaged(folder, "cut.zip", "header.tar", "cut.parquet")
    done = invoke("extract", folder, "--out", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    assert "5 images usable" in done.output
    assert "3 failed: 3 unreadable" in done.output
    index = read_index(tmp_path / "out" / "clean" / "index.parquet").table
    failed = index.filter(pc.equal(index["status"], "failed"))
    assert failed["path"].to_pylist() == ["cut.parquet", "cut.zip", "header.tar"]
    assert all(f"{folder}/{row['path']} cannot be read" in row["error"] for row in failed.to_pylist())
    shards = [sorted((tmp_path / out / "clean").glob("*.h5")) for out in ("sound", "out")]
    assert shards[0]
    assert [file.read_bytes() for file in shards[0]] == [file.read_bytes() for file in shards[1]]
    assert invoke("extract", folder, "--out", tmp_path / "out", "--strict", *options).exception.exit_code == 3
    features = tmp_path / "out" / "clean"
    found = audit(corpus="mini", features=features, layout="folder", out=tmp_path / "audit.json", reporter=reporter)
    assert found["images"] == {"usable": 5, "unreadable": 3}
    assert [(entry["real"], entry["synthetic"]) for entry in found["sets"]] == [(0, 1), (2, 2)]


def test_a_member_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.archives.MOST_IMAGE_BYTES", 1000)
    miniatures.pack(tmp_path / "bomb.zip", {"1.png": bytes(1001), "2.png": bytes(1000)})
    tar_of(tmp_path / "bomb.tar", [("1.png", bytes(1001))])
    (tmp_path / "1.png").write_bytes(bytes(1001))
    sources = Sources.of(tmp_path)
    for path in ("bomb.zip!/1.png", "bomb.tar!/1.png", "1.png"):
        with pytest.raises(DataError, match="has 1001 bytes, at most 1000 are read"):
            sources.read(path)
    assert len(sources.read("bomb.zip!/2.png")) == 1000


def test_backslashes_of_windows_are_folders():
    root = FIELD / "zip-backslash" / "t"
    rows, _ = scanned(root)
    assert {path: row["label"] for path, row in rows.items()} == {
        f"mine.zip!/{name}/{number}.png": int(name == "fake") for name in ("fake", "real") for number in range(3)
    }
    assert Sources.of(root).read("mine.zip!/fake/0.png") != Sources.of(root).read("mine.zip!/real/0.png")
    assert Sources.of(root).read("mine.zip!/fake\\\\0.png") == Sources.of(root).read("mine.zip!/fake/0.png")


def test_two_members_of_one_name_are_refused(folder):
    for kind in ("t", "zt"):
        refusal(FIELD / "tar-same-name" / kind, "holds two files called '.*', of which one would be lost")
    for extension in ("zip", "tar"):
        for number, names in enumerate([("./a.png", "a.png"), ("/a.png", "a.png"), ("b//a.png", "b/a.png")]):
            members = [(name, miniatures.picture(f"{at}")) for at, name in enumerate(names)]
            file = folder / f"twins{number}.{extension}"
            miniatures.pack(file, dict(members)) if extension == "zip" else tar_of(file, members)
    rows, summary = scanned(folder)
    assert len(rows) == len(SOUND) + 6
    assert summary.warnings[0].count("two files called") == 6


def test_what_an_archive_holds_besides_files_is_counted_and_named(folder, tmp_path):
    picture = miniatures.picture("x")
    kinds = [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
    others = [(f"{number}.png", entry(kind, "a.png")) for number, kind in enumerate(kinds)]
    tar_of(folder / "fake" / "all.tar", [("a.png", picture), *others, ("../b.png", picture)])
    with (tmp_path / "hole.png").open("wb") as file:
        file.truncate(10**6)
    subprocess.run(["tar", "-cSf", folder / "real" / "sparse.tar", "hole.png"], cwd=tmp_path, check=True)
    with zipfile.ZipFile(folder / "fake" / "links.zip", "w") as archive:
        info = zipfile.ZipInfo("soft.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "a.png")
        archive.mkdir("empty")
    rows, summary = scanned(folder)
    assert [path for path in rows if "!" in path] == ["fake/all.tar!/a.png"]
    assert summary.skipped == {
        "link in fake/all.tar": 2,
        "device or pipe in fake/all.tar": 2,
        "hidden": 1,
        "file with holes in real/sparse.tar": 1,
        "link in fake/links.zip": 1,
    }
    assert "2 link in fake/all.tar" in str(summary)
    items = list(find_images([str(folder / "fake" / "links.zip"), str(folder / "real")], io.BytesIO(), Counter()))
    assert [(item.name.removeprefix(f"{folder}/"), item.error) for item in items] == [
        ("fake/links.zip!/soft.png", "unreadable: link in the archive"),
        ("real/1.png", None),
        ("real/2.png", None),
        ("real/sparse.tar!/hole.png", "unreadable: file with holes in the archive"),
    ]


def test_an_archive_beside_what_it_holds_is_left_out_and_both_are_named(folder):
    content = {name: (folder / name).read_bytes() for name in SOUND}
    miniatures.pack(folder / "all.zip", content)
    tar_of(folder / "fake" / "sdxl.tar", images())
    miniatures.write(folder, "fake/sdxl/other.png")
    rows, summary = scanned(folder)
    assert list(rows) == ["fake/1.png", "fake/2.png", "fake/sdxl/other.png", *SOUND[2:]]
    assert summary.skipped == {"archive beside its unpacked folder": 2}
    assert summary.warnings[0] == (
        "fake/sdxl.tar in fake/sdxl, all.zip in the root: unpacked there, so the archive was left out"
    )
    miniatures.pack(folder / "all.zip", {**content, "real/3.png": miniatures.picture("3")})
    rows, summary = scanned(folder)
    assert "all.zip!/real/3.png" in rows
    assert summary.warnings[1] == "all.zip in the root: some images are unpacked there, and listed twice; remove either"


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ({"cls": b"0\n"}, {"cls": b"1"}),
        ({"json": b'{"label": "real", "caption": "a cat"}'}, {"json": b'{"cls": 1}'}),
        ({"txt": b"human"}, {"txt": b"1"}),
        ({"cls": b"0", "txt": b"a fake cat", "json": b"{}"}, {"cls": b"1", "txt": b"fake", "json": b'{"width": 3}'}),
    ],
)
def test_labels_of_webdataset_tars(tmp_path, real, fake):
    webdataset(tmp_path / "root" / "000000.tar", real, fake)
    rows, _ = scanned(tmp_path / "root")
    assert [row["label"] for row in rows.values()] == [0, 1]
    assert labels(tmp_path / "root", "unlabelled") == {"000000.tar!": None}
    found, _ = scanned(FIELD / "webdataset-labels" / "a")
    assert [row["label"] for row in found.values()] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("example", "text"),
    [
        ({"cls": b"207"}, "000001.cls says '207', which is neither real nor synthetic"),
        ({"cls": b"1", "json": b'{"label": 0}'}, "000001.cls says '1', but 000001.json says 0; correct one of them"),
        ({}, "cannot tell whether the 1 image"),
    ],
)
def test_labels_in_tars_that_say_nothing_or_contradict_each_other_are_refused(tmp_path, example, text):
    webdataset(tmp_path / "root" / "000000.tar", {"cls": b"0"}, example)
    refusal(tmp_path / "root", re.escape(text))


def test_captions_are_no_labels_and_numbers_below_a_class_folder_are_categories(tmp_path):
    webdataset(tmp_path / "root" / "fake" / "000000.tar", {"txt": b"real"}, {"txt": b"a cat"})
    webdataset(tmp_path / "root" / "real" / "000000.tar", {"cls": b"207"}, {"cls": b"1"})
    rows, summary = scanned(tmp_path / "root")
    assert [row["label"] for row in rows.values()] == [1, 1, 0, 0]
    assert summary.skipped == {".txt": 2, ".cls": 2}
    webdataset(tmp_path / "root" / "real" / "000000.tar", {"cls": b"1"})
    refusal(tmp_path / "root", "rename the folder or correct the file")


def test_the_other_columns_of_images_are_counted_and_an_unclear_choice_is_refused(folder):
    table = pa.table({"image": [miniatures.picture("x")], "mask": [miniatures.picture("y")]})
    pq.write_table(table, folder / "fake" / "part.parquet")
    rows, summary = scanned(folder, "folder")
    assert summary.skipped == {"image in the column 'mask' of fake/part.parquet": 1}
    assert Sources.of(folder).read(list(rows)[2]) == miniatures.picture("x")
    pq.write_table(table.rename_columns(["image_a", "image_b"]), folder / "fake" / "part.parquet")
    refusal(folder, "image_a, image_b are all columns of bytes", "folder", strict=True)
