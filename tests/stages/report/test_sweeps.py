"""What the sweeps of a study found, as tables and figures of its report."""

import pytest

from running import read_csv
from stages.report.load import load_results
from stages.report.run import run
from stages.report.study import Study
from stages.report.sweeps import read_sweeps, sweep_tables
from storage.csv_text import csv_text
from storage.errors import DataError

SEEDS = (1, 2)
SETS = {"one": True, "two": True}


def write_sweep(path, places, value, *, sets=("one", "two", "elsewhere")):
    """Write a sweep as ``ltdpipe sweep`` does; ``value``: place, seed -> accuracy of set one, AP is 0.1 more."""
    rows = []
    for place in places:
        for seed in SEEDS:
            accuracy = value(*place, seed)
            for name in (*sets, "mean of sets"):
                # a set that the study does not have would spoil its means
                shown = {"two": accuracy - 0.1, "elsewhere": 0.0, "mean of sets": 0.0}.get(name, accuracy)
                rows.append([*place, seed, "demo", name, 20, shown, shown + 0.1])
    names = ["n", "start"] if len(places[0]) == 2 else ["block"]
    path.write_text(csv_text([*names, "seed", "corpus", "set", "images", "accuracy", "ap"], rows))
    return path


def starts(first, last, *lengths):
    return [(n, start) for n in lengths for start in range(first, last - n + 2)]


@pytest.fixture
def windows(tmp_path):
    def value(n, start, seed):
        return 0.6 + 0.02 * (n == 5) + 0.01 * (start - 11) + 0.02 * (seed - 1.5)

    return write_sweep(tmp_path / "window.csv", starts(11, 19, 3, 5), value)


def swept(study, files):
    study.add_scores("ltd", 1, SETS)
    results = load_results(study.scores)
    return results, read_sweeps(files, results)


def test_lengths_are_means_over_starts_and_seeds_and_over_the_sets_of_the_study(study, windows):
    _, sweeps = swept(study, {("window", "train"): windows})
    table = sweep_tables(sweeps)["window_length"]
    assert [block.title for block in table.blocks][:2] == ["accuracy, mean over starts", "accuracy, best start"]
    mean, best = table.blocks[:2]
    assert [(row[0], row[1], row[-1]) for row in mean.rows] == [(3, 7, ""), (5, 5, "best")]
    # 0.05 less for the other set; starts 11..17 and 11..15
    assert [row[2].value for row in mean.rows] == pytest.approx([0.55 + 0.03, 0.57 + 0.02])
    assert [row[2].value for row in best.rows] == pytest.approx([0.55 + 0.06, 0.57 + 0.04])
    assert mean.rows[0][2].std == pytest.approx(0.02 / 2**0.5)
    assert table.blocks[2].rows[0][2].value == pytest.approx(0.55 + 0.03 + 0.1)
    assert "heads trained on train. demo: 2 of 2 sets" in table.notes[0]


def test_every_window_is_a_row_from_its_first_to_its_last_block(study, windows):
    _, sweeps = swept(study, {("window", "train"): windows})
    table = sweep_tables(sweeps)["window_sweep"]
    rows = table.blocks[0].rows
    assert [row[:3] for row in rows][:2] == [[3, 11, 13], [3, 12, 14]]
    assert len(rows) == 7 + 5
    assert [row[3].value for row in rows if row[0] == 5] == pytest.approx([0.57 + 0.01 * k for k in range(5)])
    assert [row[:3] for row in rows if row[-1] == "best"] == [[5, 11, 15]]
    assert "blocks 11 to 15 are best" in table.notes[-1]


def test_the_report_shows_them_and_gives_the_same_bytes_again(study, windows, tmp_path):
    layers = write_sweep(tmp_path / "layer.csv", [(block,) for block in range(12)], lambda b, s: 0.5 + 0.01 * b)
    study.add_scores("ltd", 1, SETS)
    study.add_profile(["one", "two"])
    files = {("window", "train"): windows, ("layer", "train"): layers}
    inputs = {"score_files": study.scores, "profile_files": study.profiles, "sweep_files": files, "replicates": 20}
    for name in ("first", "second"):
        run(Study(name="x"), **inputs, out=tmp_path / name)
    names = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert all((tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes() for name in names)
    for table in ("window_length", "window_sweep", "layer_sweep", "layer_transitions"):
        assert {f"tables/{table}.{suffix}" for suffix in ("csv", "md", "tex")} <= set(map(str, names))
    page = (tmp_path / "first" / "report.html").read_text()
    assert page.count("<caption>Window length") == 4
    assert "Accuracy of a linear probe on one block" in page
    assert "demo: at most 56.00 %, at 11." in page
    rows = read_csv(tmp_path / "first" / "tables" / "layer_transitions.csv")
    assert [row["transition"] for row in rows] == [f"{k} to {k + 1}" for k in range(7)] * 2
    assert {row["distance"] for row in rows} == {"cosine distance", "L2 distance"}
    # those of all generators together, not of one
    assert [float(row["demo"]) for row in rows] == pytest.approx([0.5 + 0.4 * k / 7 for k in range(7)] + [0.3] * 7)


def test_a_sweep_that_has_not_run_or_is_no_table_is_named(study, tmp_path):
    study.add_scores("ltd", 1, SETS)
    results = load_results(study.scores)
    with pytest.raises(DataError, match="ltdpipe sweep layer --trained-on train"):
        read_sweeps({("layer", "train"): tmp_path / "results.csv"}, results)
    (tmp_path / "results.csv").write_text("block,seed\n1,1\n")
    with pytest.raises(DataError, match="no table of `ltdpipe sweep layer`"):
        read_sweeps({("layer", "train"): tmp_path / "results.csv"}, results)


def test_generators_held_out_are_a_table_with_the_mean_of_what_was_not_seen_and_a_heat_map(study, tmp_path):
    ap = {"one": {"one": 0.9, "two": 0.6}, "two": {"one": 0.7, "two": 0.8}}
    rows = []
    for training, generator, few in (
        ("only", "one", 0),
        ("only", "two", 0),
        ("until", "2017-10", 0),
        ("few", "two", 10),
    ):
        for seed, name in ((seed, name) for seed in SEEDS for name in SETS):
            trained = {"until": ["one"], "few": ["one", "two"]}.get(training, [generator])
            value = ap[trained[0]][name] + 0.02 * (seed - 1.5)
            place = [training, generator, few, seed, "demo", name, 20]
            rows.append([*place, value, value, 0, 0.5, float(name in trained)])
    names = ["training", "generator", "few", "seed", "corpus", "set", "images", "accuracy", "ap", "best_epoch"]
    file = tmp_path / "generators.csv"
    file.write_text(csv_text([*names, "validation_accuracy", "seen"], rows))
    study.add_scores("ltd", 1, SETS)
    inputs = {"score_files": study.scores, "profile_files": [], "sweep_files": {("generators", "train"): file}}
    run(Study(name="x"), **inputs, out=tmp_path / "out", replicates=20)
    table = read_csv(tmp_path / "out" / "tables" / "generators.csv")
    found = [row for row in table if row["training"].startswith("AP, ")]
    assert [(row["generator"], row["images of it"], row["unseen sets"]) for row in found] == [
        ("one", "", "1"), ("two", "", "1"), ("2017-10", "", "1"), ("two", "10", "0"),
    ]  # fmt: skip
    assert [float(row["mean of unseen"]) for row in found[:3]] == pytest.approx([0.6, 0.7, 0.6])
    assert (found[3]["mean of unseen"], float(found[3]["two"])) == ("", pytest.approx(0.6))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Mean AP on generators not seen: 65.00 %. Columns: 1 one, 2 two." in page
    assert ">two, tested on one: 0.700<" in page
