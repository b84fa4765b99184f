"""What the paper says in words, and the verdict of the study's own data on it."""

import pytest

from running import read_csv
from stages.report.claims import FAILS, HOLDS, UNDECIDED, UNTESTED
from stages.report.run import run
from stages.report.study import Study
from storage.csv_text import csv_text

SETS = {"one": True, "two": True}


def judged(rows):
    return [row for row in rows if row["verdict"] != UNTESTED]


def rows_of(study, out, name, set_lists=None, **more):
    inputs = {"score_files": study.scores, "profile_files": study.profiles, **more}
    run(Study(name="x", set_lists=set_lists or {}), **inputs, out=out, replicates=100)
    path = out / "tables" / f"{name}.csv"
    return read_csv(path) if path.exists() else []


@pytest.mark.parametrize(("shift", "verdict"), [(-0.5, HOLDS), (3.0, FAILS), (1.0, UNDECIDED)])
def test_a_head_is_better_where_the_interval_of_the_difference_lies_above_0(study, tmp_path, shift, verdict):
    study.add_scores("ltd", 1, SETS, shift=1.0, reals=60, facts={"trained_on": "a"})
    study.add_scores("ltd-raw", 1, SETS, shift=shift, reals=60, facts={"trained_on": "a"})
    (row,) = judged(rows_of(study, tmp_path, "claims"))
    assert (row["claim"], row["benchmark"]) == ("both branches are better than the raw branch alone", "demo")
    assert row["verdict"] == verdict
    page = (tmp_path / "report.html").read_text()
    counts = [int(verdict == each) for each in (HOLDS, FAILS, UNDECIDED)]
    assert "Not tested here: both branches are better than the LTD branch alone; position embeddings help;" in page
    assert "".join(f'<td data-value="{count}">{count}</td>' for count in counts) in page
    gains = rows_of(study, tmp_path, "gains")
    text = [f"{100 * float(gains[1][name]):+.2f}" for name in ("gain", "low", "high")]
    assert row["found here"] == "ltd minus ltd-raw: {} ({} to {})".format(*text)


def test_trainings_are_judged_one_by_one_and_gains_are_over_the_sets_of_both(study, tmp_path):
    for trained_on in ("a", "b"):
        for head, shift in (("ltd", 2.0), ("univfd", 0.0)):
            study.add_scores(head, 1, SETS, shift=shift, facts={"trained_on": trained_on})
    rows = rows_of(study, tmp_path, "claims")
    found = [(row["found here"].partition(":")[0], row["verdict"]) for row in judged(rows)[:2]]
    assert found == [("ltd (a) minus univfd (a)", HOLDS), ("ltd (b) minus univfd (b)", HOLDS)]
    needs = {row["claim"]: row["found here"] for row in rows if row["verdict"] == UNTESTED}
    assert needs["windows of 5 blocks are best"] == "needs `ltdpipe sweep window`"
    assert needs["five epochs are enough"] == "needs the heads ltd and ltd-10-epochs"
    gains = rows_of(study, tmp_path, "gains")
    assert [row["other head"] for row in gains] == ["ltd (b)", "univfd (a)", "univfd (b)"] * 2
    means = {row["head"]: float(row["mean"]) for row in rows_of(study, tmp_path, "main") if row["metric"] == "AP"}
    assert float(gains[1]["gain"]) == pytest.approx(means["ltd (a)"] - means["univfd (a)"])


def test_windows_blocks_degradation_and_movement_are_judged_by_their_means(study, tmp_path):
    for head, shift in (("ltd", 0.3), ("linear", 3.0)):
        for view in ("clean", "jpeg-60"):
            study.add_scores(head, 1, SETS, view=view, shift=shift)
    study.add_profile(["one"], windows_of=[(11, 5, 0.9), (12, 5, 0.1)])
    sweeps = {}
    for kind, names, best in (("window", ["n", "start"], 5), ("layer", ["block"], 3)):
        rows = []
        for place in [(n, 11) for n in (3, 5)] if kind == "window" else [(block,) for block in range(24)]:
            value = 0.9 if place[0] == best else 0.6
            rows += [[*place, seed, "demo", name, 20, value, value] for seed in (0, 1) for name in SETS]
        sweeps[kind, "a"] = tmp_path / f"{kind}.csv"
        header = [*names, "seed", "corpus", "set", "images", "accuracy", "ap"]
        sweeps[kind, "a"].write_text(csv_text(header, rows))
    rows = {row["claim"]: row for row in judged(rows_of(study, tmp_path / "out", "claims", sweep_files=sweeps))}
    assert {claim: row["verdict"] for claim, row in rows.items()} == {
        "LTD is the most accurate head at JPEG 60": FAILS,
        "windows of 5 blocks are best": HOLDS,
        "the middle blocks, 11 to 19, tell most": FAILS,
        "synthetic images move more in blocks 11 to 15": HOLDS,
    }
    assert rows["windows of 5 blocks are best"]["found here"] == "mean over starts, 3: 60.00, 5: 90.00"


def test_the_ablation_is_judged_by_the_mean_of_both_benchmarks_each_with_its_own_training(study, tmp_path):
    lists = {"ufd16": ["one"], "drct13": ["two"]}

    def train(head, shifts):
        for shift, trained_on, corpus, name in zip(
            shifts, ("progan", "sdv14"), ("ufd", "drct"), ("one", "two"), strict=True
        ):
            study.add_scores(head, 1, {name: True}, corpus=corpus, shift=shift, facts={"trained_on": trained_on})

    def claim():
        rows = rows_of(study, tmp_path, "claims", set_lists=lists)
        return next(row for row in rows if row["claim"].startswith("of all ablations"))

    train("ltd", (1.0, 3.0))
    train("ltd-raw", (2.0, 2.0))
    for head in ("ltd-raw-nopos", "ltd-delta"):
        train(head, (0.5, 0.5))
    study.add_scores("ltd", 1, {"one": True}, corpus="ufd", view="x", shift=0.0, facts={"trained_on": "progan"})
    assert claim()["verdict"] == UNTESTED  # an ablation is missing
    train("ltd-delta-nopos", (0.5, 0.5))
    row = claim()
    mean = {(r["head"], r["metric"]): r for r in rows_of(study, tmp_path, "main", set_lists=lists)}
    own = [float(mean[f"{head} ({trained})", "accuracy"][f"{corpus}: mean"])
           for head in ("ltd", "ltd-raw") for trained, corpus in (("progan", "ufd"), ("sdv14", "drct"))]  # fmt: skip
    assert f"ltd: {50 * (own[0] + own[1]):.2f} (published 98.22)" in row["found here"]
    assert row["verdict"] == (HOLDS if own[0] + own[1] > own[2] + own[3] else FAILS)
