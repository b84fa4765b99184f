"""Each layout on a miniature of its benchmark: labels, sets, splits and shared reals, and what `auto` makes of it."""

import miniatures
import pytest
from miniatures import members, refusal, scanned

from stages.scan.protocols import set_list


def test_forensynths(tmp_path):
    miniatures.forensynths(tmp_path)
    rows, summary = scanned(tmp_path)
    assert summary.layout == "forensynths"
    assert "aigcdetect" not in summary.decided
    assert "ufd would fit too" in summary.decided
    assert summary.skipped == {".txt": 1}
    assert members(rows) == {
        **{name: [2, 2] for name in miniatures.NESTED},
        **{("sitd" if name == "seeingdark" else name): [1, 1] for name in miniatures.FLAT},
        "train/progan": [2, 2],
    }
    in_train_class = rows["test/progan/train/1_fake/00.PNG"]
    assert (in_train_class["split"], in_train_class["category"], in_train_class["label"]) == ("test", "train", 1)
    assert rows["train/train/0_real/4.png"]["category"] == "train"
    assert rows["train/chair/1_fake/2.png"]["generator"] == "progan"
    assert rows["test/san/0_real/n01440764.10026.jpg"]["generator"] is None
    rows, summary = scanned(tmp_path, splits=("train",), categories=("chair",))
    assert sorted(rows) == ["train/chair/0_real/1.png", "train/chair/1_fake/2.png"]
    assert summary.skipped["image(s) of another set, split or category"] == 36
    rows, _ = scanned(tmp_path / "train", "forensynths")
    assert members(rows) == {"progan": [2, 2]}
    assert {row["category"] for row in rows.values()} == {"chair", "train"}


def test_ufd_authors_archive_shares_its_reals(tmp_path):
    miniatures.ufd_archive(tmp_path)
    rows, summary = scanned(tmp_path)
    assert summary.layout == "ufd"
    assert not summary.warnings
    assert rows["diffusion_datasets/imagenet/0_real/r1.jpg"]["sets"] == ["guided"]
    assert rows["diffusion_datasets/laion/0_real/r1.jpg"]["sets"] == sorted(miniatures.UFD_LAION)
    found = members(rows)
    assert found["guided"] == found["dalle"] == [2, 1]
    assert found["sitd"] == found["progan"] == [1, 1]
    assert len(rows) == summary.real + summary.fake == 4 + 4 + 8  # shared reals are listed once
    miniatures.write(tmp_path, "diffusion_datasets/dalle/0_real/own.png")
    found = members(scanned(tmp_path)[0])
    assert (found["dalle"], found["ldm_100"]) == ([1, 1], [2, 1])  # a set with its own reals gets no others


@pytest.mark.parametrize(
    ("writer", "layout", "sets"),
    [
        (miniatures.ufd_repack, "ufd", ("biggan", "guided", *miniatures.UFD_LAION)),
        (miniatures.genimage_repack, "genimage", set_list("genimage8").members),
        (miniatures.drct_rearranged, "drct-2m", miniatures.DRCT),
        (miniatures.aigcdetect, "aigcdetect", set_list("aigcdetect16").members),
        (miniatures.aigibench, "aigibench", set_list("aigibench25").members),
    ],
)
def test_a_benchmark_is_recognised_and_its_sets_have_reals_of_their_own(tmp_path, writer, layout, sets):
    writer(tmp_path)
    rows, summary = scanned(tmp_path)
    assert summary.layout == layout
    assert members(rows) == {name: [1, 1] for name in sets}


def test_genimage_with_any_inner_name(tmp_path):
    miniatures.genimage(tmp_path / "all")
    rows, summary = scanned(tmp_path / "all")
    assert summary.layout == "genimage"
    assert members(rows) == {**{key: [1, 1] for key in set_list("genimage8").members}, "train/adm": [1, 1]}
    path = "stable_diffusion_v_1_4/imagenet_ai_0419_sdv4/val/ai/1_sd.v1.4_2.png"
    assert (rows[path]["generator"], rows[path]["split"]) == ("sdv1.4", "val")
    inner = "one/imagenet_ai_0419_sdv4/val"
    miniatures.write(tmp_path, f"{inner}/ai/1.png", f"{inner}/nature/1.JPEG")
    assert members(scanned(tmp_path / "one", "genimage")[0]) == {"sdv1.4": [1, 1]}


def test_drct_shares_coco_reals_and_reads_archives(tmp_path):
    root, reals = tmp_path / "drct", tmp_path / "coco"
    miniatures.drct(root, reals)
    rows, summary = scanned(root, reals=reals)
    assert summary.layout == "drct-2m"
    assert members(rows) == {**{key: [2, 1] for key in miniatures.DRCT}, "train/stable-diffusion-v1-4": [1, 1]}
    assert f"images/{miniatures.DRCT[0]}.zip!/{miniatures.DRCT[0]}/val2017/1.png" in rows
    assert rows["@reals/val2017/000000000139.jpg"]["sets"] == sorted(miniatures.DRCT)
    assert summary.skipped == {
        ".txt": 1,
        "archive beside its unpacked folder": 1,
        "reconstruction of a real image": 1,
        "shared real image(s) outside train2017 and val2017": 1,
    }
    _, summary = scanned(root, "drct-2m")
    unpacked, *others = summary.warnings
    archive = f"images/{miniatures.DRCT[2]}.zip"
    assert unpacked == f"{archive} in {archive[:-4]}: unpacked there, so the archive was left out"
    assert len(others) == len(miniatures.DRCT) + 1
    assert all("has no real image" in warning and "--reals" in warning for warning in others)


@pytest.mark.parametrize("root", ["Chameleon", "data-chameleon", "x/Chameleon"])
def test_chameleon_is_recognised_by_its_name(tmp_path, root):
    miniatures.chameleon(tmp_path / root)
    rows, summary = scanned(tmp_path / root.partition("/")[0])
    assert summary.layout == "chameleon"
    assert members(rows) == {"chameleon": [2, 1]}
    assert {row["split"] for row in rows.values()} == {"test"}


@pytest.mark.parametrize("reals", ["raise", "s/real_RAISE_1k"])
def test_synthbuster_shares_raise(tmp_path, reals):
    miniatures.synthbuster(tmp_path / "s", tmp_path / reals)
    second = tmp_path / reals if "/" not in reals else None
    rows, summary = scanned(tmp_path / "s", reals=second)
    assert summary.layout == "synthbuster"
    assert members(rows) == {key: [2, 1] for key in miniatures.SYNTHBUSTER}
    assert summary.skipped == {".txt": 9, ".py": 1}
    if second is not None:
        miniatures.write(second, "1_fake/1.png")
        refusal(tmp_path / "s", "@reals/1_fake .*; expected real images only", "synthbuster", reals=second)


def test_community_forensics(tmp_path):
    miniatures.community_folders(tmp_path / "CommunityForensics")
    rows, summary = scanned(tmp_path / "CommunityForensics")
    assert summary.layout == "community-forensics"
    assert members(rows) == {"stable.diffusion.v1.4": [1, 1], "dcgan": [1, 1]}
    (tmp_path / "shards").mkdir()
    miniatures.community_parquet(tmp_path / "shards")
    rows, summary = scanned(tmp_path / "shards")
    assert summary.layout == "community-forensics"
    assert members(rows) == {"PublicEval": [1, 2], "Manual": [1, 1]}
    fake = rows["data/PublicEval-00000-of-00001.parquet!/00000002/c.v1.png"]
    assert (fake["label"], fake["generator"]) == (1, "model.c")


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("forensynths", "test/newgan/0_real/1.png"),
        ("ufd", "diffusion_datasets/laion/1_fake/1.png"),
        ("genimage", "ADM/inner/val/1.png"),
        ("drct-2m", "images/sd-turbo/other/1.png"),
        ("chameleon", "test/other/0_real/1.png"),
        ("synthbuster", "glide/0_real/1.png"),
        ("community-forensics", "real/1.png"),
        ("folder", "holiday/1.png"),
    ],
)
def test_a_folder_whose_class_cannot_be_told_is_named(tmp_path, layout, path):
    miniatures.write(tmp_path, path)
    refusal(tmp_path, f"cannot tell whether .* {path.rpartition('/')[0]} ", layout)
