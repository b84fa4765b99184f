"""The profile `paper` on a miniature of its data, through DVC: corpora side by side, then everything that follows."""

from __future__ import annotations

import csv
import re

import pytest
import yaml

from running import run_command, start
from stages.demo.miniatures import run as make_miniatures
from stages.scan.protocols import set_list

TRAIN = {"epochs": 2, "batch": 4, "validation_share": 0.4, "views": ["train:2"]}
VIEWS = {
    "ufd": ["clean", "jpeg:60"],
    "drct2m": ["clean", "scale:0.5"],
    "progan": ["clean", "train:2", "val"],
    "sdv14": ["clean", "train:2", "val"],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory, clone_of_project):
    """A clone in which the study has run, without two generators of GenImage."""
    folder = tmp_path_factory.mktemp("paper")
    clone = clone_of_project(folder / "clone")
    profile = yaml.safe_load((clone / "profiles" / "paper.yaml").read_text())
    profile["extract"]["backbone"] = "demo-vit"
    profile["heads"] = {name: profile["heads"][name] for name in ("ltd", "ltd-raw")}
    profile["seeds"], profile["sweeps"]["window"] = [0], []
    profile["train"] |= TRAIN
    for name, views in VIEWS.items():
        profile["corpora"][name]["views"] = views
    (clone / "profiles" / "paper.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    make_miniatures(root=folder / "data", test_images=2, training_images=10)
    for generator in ("wukong", "BigGAN"):
        (folder / "data" / "genimage" / generator).rename(folder / generator)
    run_command("ltdpipe", "profile", "use", "paper", "--data", str(folder / "data"), cwd=clone)
    return clone


def test_two_processes_extract_different_corpora_side_by_side(study):
    side = ("dvc", "--wait-for-lock", "repro")
    processes = [start(*side, f"extract@{name}", cwd=study) for name in ("progan", "genimage")]
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    output = run_command("dvc", "repro", "extract@progan", "extract@genimage", cwd=study).stdout
    assert "Running stage" not in output


def test_the_whole_study_yields_its_tables_with_the_right_sets_in_order(study):
    output = run_command("dvc", "repro", cwd=study).stdout
    ran = re.findall(r"Running stage '(.+?)'", output)
    assert "extract@progan" not in ran  # made by the processes before
    report = study / "reports" / "paper"
    header = next(
        line for line in (report / "tables" / "main.md").read_text().splitlines() if line.startswith("| head")
    )
    columns = [cell.strip().replace("\\", "") for cell in header.split("|")][3:]
    genimage = [name for name in set_list("genimage8").members if name not in ("wukong", "biggan")]
    members = {"ufd": set_list("ufd16").members, "genimage": genimage, "drct2m": set_list("drct13").members}
    assert [column.rpartition("/")[2] for column in columns[: 16 + 6 + 13]] == [
        name for names in members.values() for name in names
    ]
    page = (report / "REPRODUCTION.md").read_text()
    assert "ufd16, 16 of 16 sets" in page
    assert "drct13, 13 of 13 sets" in page
    assert "genimage8, 6 of 8 sets" in page
    assert "not compared: sets are missing" in page
    tables = ("ablation", "robustness", "robustness_paper_grid", "published_1", "reproduction", "layer_sweep")
    for table in (*tables, "layer_transitions"):
        assert (report / "tables" / f"{table}.tex").exists(), table
    layers = (report / "tables" / "layer_sweep.md").read_text()
    assert "| block | ufd (progan) | genimage (progan) | drct2m (progan) | ufd (sdv14) |" in layers
    assert "ufd (progan): 16 of 16 sets; genimage (progan): 6 of 8 sets" in layers
    with (report / "tables" / "main.csv").open() as file:
        for row in csv.DictReader(file):
            covered = [(row[f"{name}: sets_in_mean"], row[f"{name}: sets"]) for name in members]
            assert covered in ([("16", "16"), ("6", "8"), ("13", "13")], [("0", "16"), ("0", "8"), ("0", "13")]), row
    assert "over 6 of 8 sets" in (report / "report.html").read_text()
    assert "genimage: 6 of 8 sets" in (report / "tables" / "ablation.md").read_text()
    assert "Running stage" not in run_command("dvc", "repro", cwd=study).stdout
