"""The profile `paper` on a miniature of its data: from the data root through every stage of the graph to its tables."""

import pytest
import yaml

from running import PROJECT, git, ltdpipe, read_csv, run_graph
from stages.demo.miniatures import run as make_miniatures
from stages.scan.protocols import set_list

VIEWS = {
    "ufd": ["clean", "jpeg:60"],
    "genimage": ["clean"],
    "drct2m": ["clean", "scale:0.5"],
    "progan": ["clean", "val"],
    "sdv14": ["clean", "val"],
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of the study, run in a project without two generators of GenImage."""
    folder = tmp_path_factory.mktemp("paper")
    profile = yaml.safe_load((PROJECT / "profiles" / "paper.yaml").read_text())
    profile["extract"]["backbone"] = "demo-vit"
    profile["heads"] = {name: profile["heads"][name] for name in ("ltd", "ltd-raw")}
    profile["seeds"], profile["sweeps"]["window"] = [0], []
    profile["train"] |= {"epochs": 1, "batch": 4, "validation_share": 0.4, "views": ["clean"]}
    for name, views in VIEWS.items():
        profile["corpora"][name]["views"] = views
    (folder / "profiles").mkdir()
    (folder / "profiles" / "paper.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    make_miniatures(root=folder / "data", test_images=1, training_images=4)
    for generator in ("wukong", "BigGAN"):
        (folder / "data" / "genimage" / generator).rename(folder / generator)
    for name in ("dvc.yaml", "stages", "storage"):
        (folder / name).symlink_to(PROJECT / name)
    (folder / ".dvc").mkdir()
    git(folder, "init", "-q")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / ".dvc" / "tmp" / "site"))
        assert ltdpipe("profile use paper --data data") == 0
        assert run_graph()[-1] == "report"
    return folder / "reports" / "paper"


def test_the_whole_study_yields_its_tables_with_the_right_sets_in_order(report):
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
    tables = ("ablation", "robustness", "published_1", "reproduction", "layer_sweep")
    for table in (*tables, "layer_transitions"):
        assert (report / "tables" / f"{table}.tex").exists(), table
    layers = (report / "tables" / "layer_sweep.md").read_text()
    assert "| block | ufd (progan) | genimage (progan) | drct2m (progan) | ufd (sdv14) |" in layers
    assert "ufd (progan): 16 of 16 sets; genimage (progan): 6 of 8 sets" in layers
    for row in read_csv(report / "tables" / "main.csv"):
        covered = [(row[f"{name}: sets_in_mean"], row[f"{name}: sets"]) for name in members]
        assert covered in ([("16", "16"), ("6", "8"), ("13", "13")], [("0", "16"), ("0", "8"), ("0", "13")]), row
    assert "over 6 of 8 sets" in (report / "report.html").read_text()
    assert "genimage: 6 of 8 sets" in (report / "tables" / "ablation.md").read_text()


def test_features_of_every_corpus_are_published_with_their_fingerprint(report):
    project = report.parents[1]
    for corpus in ("progan", "sdv14", "ufd", "genimage", "drct2m"):
        assert (project / "data" / "contents" / f"{corpus}.json").exists()
        views = VIEWS.get(corpus, ["clean"])
        assert {path.parent.name for path in (project / "data" / "features" / corpus).glob("*/index.parquet")} == {
            view.replace(":", "-") for view in views
        }
