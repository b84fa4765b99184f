"""The files of a report: what each holds, for whom, and that no name in them does anything."""

import json
import re
from types import SimpleNamespace
from unittest.mock import ANY

import numpy as np
import pytest

from running import read_csv
from stages.measure.metrics import METRICS
from stages.report.run import run
from stages.report.study import Study

SETS = {"one": True, "two": True, "fakes only": False}


def report(study, out, **settings):
    """Write a report; return its folder, what metrics.json holds, and the page."""
    about = Study(name="demo", **settings)
    metrics = run(about, score_files=study.scores, profile_files=study.profiles, out=out, replicates=100)
    return SimpleNamespace(out=out, metrics=metrics, page=(out / "report.html").read_text())


@pytest.fixture(scope="module")
def made(plain_study, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    (out / "tables").mkdir()
    (out / "tables" / "robustness.csv").write_text("of an earlier run")
    return report(plain_study, out, head_order=["ltd"], set_order=["two", "one"])


def test_two_runs_give_the_same_bytes_whatever_the_order_of_the_files(plain_study, made, tmp_path):
    shuffled = SimpleNamespace(scores=plain_study.scores[::-1], profiles=plain_study.profiles)
    report(shuffled, tmp_path, head_order=["ltd"], set_order=["two", "one"])
    files = sorted(path.relative_to(made.out) for path in made.out.rglob("*.*"))
    named, formats = ("main", "per_set", "gains", "tests", "layer_transitions"), ("csv", "md", "tex")
    expected = [f"tables/{name}.{suffix}" for name in named for suffix in formats]
    expected += ["tables/per_seed.csv", "tables/windows.csv"]
    # the table of an earlier run is gone
    assert sorted(map(str, files)) == sorted(
        ["metrics.json", "summary.json", "plots/sets.csv", "report.html", "REPRODUCTION.md", *expected]
    )
    assert all((made.out / path).read_bytes() == (tmp_path / path).read_bytes() for path in files)


def test_metrics_json_holds_numbers_only_and_no_undefined_one(made):
    written = json.loads((made.out / "metrics.json").read_text())
    assert written == made.metrics
    leaves = [value for lines in written.values() for line in lines.values() for value in line.values()]
    assert all(isinstance(value, (int, float)) for value in leaves)
    assert list(written["ltd"]) == ["demo", "demo/two", "demo/one", "demo/fakes only"]
    assert "ap" not in written["ltd"]["demo/fakes only"]
    mean, one, two = (written["ltd"][key] for key in ("demo", "demo/one", "demo/two"))
    assert (mean["ap_sets"], mean["sets"]) == (2, 3)
    assert mean["ap"] == pytest.approx((one["ap"] + two["ap"]) / 2)
    summary = json.loads((made.out / "summary.json").read_text())
    assert summary == {"demo": {name: mean[name] for name in ("ap", "accuracy")}}


def test_the_main_table_has_a_line_per_head_and_metric_and_says_what_the_mean_covers(made):
    rows = read_csv(made.out / "tables" / "main.csv")
    lines = [(row["head"], row["metric"]) for row in rows[:4]]
    assert lines == [("ltd", "AP"), ("linear", "AP"), ("ltd", "accuracy"), ("linear", "accuracy")]
    assert list(rows[0])[3:6] == ["two", "one", "fakes only"]
    assert (rows[0]["fakes only"], rows[0]["sets_in_mean"], rows[0]["sets"]) == ("", "2", "3")
    assert float(rows[0]["mean"]) == made.metrics["ltd"]["demo"]["ap"]
    text = (made.out / "tables" / "main.md").read_text()
    best = max(metrics["demo"]["ap"] for metrics in made.metrics.values())
    assert f"| **{100 * best:.2f}** |" in text
    assert "| head | seeds | two | one | fakes only | mean | mean\\_std | sets\\_in\\_mean | sets |" in text
    assert re.search(r"\| ltd \| 2 \| .*\| undefined \| .* \| 2 \| 3 \|", text)


def test_the_long_tables_hold_every_value(made):
    per_set, per_seed = (read_csv(made.out / "tables" / f"{name}.csv") for name in ("per_set", "per_seed"))
    assert (len(per_set), len(per_seed)) == (2 * 3 * len(METRICS), 2 * 3 * 2)
    row = next(row for row in per_set if (row["head"], row["set"], row["metric"]) == ("ltd", "one", "ap"))
    assert float(row["mean"]) == made.metrics["ltd"]["demo/one"]["ap"]
    assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    assert (row["n_real"], row["n_fake"], row["seeds_in_mean"], row["undefined"]) == ("12", "10", "2", "")
    seeds = [float(row["ap"]) for row in per_seed if (row["head"], row["set"]) == ("ltd", "one")]
    assert float(row["mean"]) == pytest.approx(sum(seeds) / 2)
    assert {row["view"] for row in per_seed} == {"test"}
    undefined = {row["set"]: (row["undefined"], row["mean"]) for row in per_set if row["metric"] == "ap"}
    assert undefined == {"one": ("", ANY), "two": ("", ANY), "fakes only": ("no real images", "")}
    bars = read_csv(made.out / "plots" / "sets.csv")
    assert [row["result"] for row in bars if row["set"] == "one"] == ["one: ltd", "one: linear"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in bars if row["set"] != "fakes only")


def test_degraded_views_make_a_table_of_what_is_lost(study, tmp_path):
    views = ("clean", "jpeg-90", "jpeg-60", "jpeg-30", "webp-80", "webp-50", "blur-1", "blur-2", "scale-0.5+jpeg-70")
    for strength, view in enumerate(views):
        study.add_scores("ltd", 1, SETS, view=view, shift=2.0 / (strength + 1))
    made = report(study, tmp_path)
    rows = [row for row in read_csv(tmp_path / "tables" / "robustness.csv") if row["metric"] == "AP"]
    assert [row["view"] for row in rows] == list(views)
    assert float(rows[0]["mean"]) == made.metrics["ltd"]["demo"]["ap"]
    assert float(rows[2]["relative to clean"]) == pytest.approx(float(rows[2]["mean"]) - float(rows[0]["mean"]))
    assert "AP against JPEG quality" in made.page
    assert "ltd: from" in made.page


def test_what_spoils_the_numbers_is_said_on_top(study, tmp_path):
    used = {"trained_on": "demo", "tested_images": "trained", "window_moved": False}
    for seed in (1, 2):
        study.add_scores("ltd", seed, SETS, facts=used)
    study.add_scores("linear", 1, SETS, facts={"trained_on": "elsewhere"})
    audit = {"corpus": "demo", "warnings": [{"kind": "format", "set": "one", "text": "reals are <JPEG>, fakes PNG"}]}
    about = {"made_from": {"Backbone": "demo-vit, random weights", "Heads": "40 epochs"}, "random_weights": True}
    page = report(study, tmp_path, audits=[audit], **about).page
    assert "Backbone: demo-vit, random weights. Heads: 40 epochs.</p>" in page
    assert "<li>The backbone has random weights: the numbers show" in page
    assert "Audit of demo/one: reals are &lt;JPEG&gt;, fakes PNG" in page
    assert "ltd (demo): tested images of corpus demo trained these heads; do not trust their numbers" in page
    assert "linear (elsewhere): tested images" not in page
    assert page.count("ltd (demo): for some seed, training left the random initial window unchanged.") == 1


def test_a_generator_whose_folder_is_empty_is_counted_in_every_mean(study, tmp_path):
    study.add_scores("ltd", 1, SETS)
    audits = [{"corpus": "demo", "warnings": [], "without_images": ["test/fake/gan3", "test/fake/one"]}] * 2
    made = report(study, tmp_path, audits=audits)
    assert (made.metrics["ltd"]["demo"]["ap_sets"], made.metrics["ltd"]["demo"]["sets"]) == (2, 4)
    assert "over 2 of 4 sets" in made.page


def test_the_best_head_is_named_first_and_bold(study, tmp_path):
    for head, shift in (("good", 2.0), ("poor", 0.1)):
        study.add_scores(head, 1, SETS, view="clean", shift=shift)
    made = report(study, tmp_path)
    ap = {head: metrics["demo"]["ap"] for head, metrics in made.metrics.items()}
    assert f"good has the highest mean AP, {100 * ap['good']:.2f}\xa0% over 2 of 3 sets. Its accuracy" in made.page
    per_set = [row for row in read_csv(tmp_path / "tables" / "per_set.csv") if row["metric"] == "ece" and row["mean"]]
    ece = {
        head: np.mean([float(row["mean"]) for row in per_set if row["head"] == head and row["set"] != "fakes only"])
        for head in ap
    }
    bold = np.array([float(value) for value in re.findall(r'<td class="best" data-value="([\d.]+)"', made.page)])
    for value, is_bold in (
        *((ap["good"], True), (ap["poor"], False)),
        *((min(ece.values()), True), (max(ece.values()), False)),
    ):
        assert np.isclose(bold, value, rtol=1e-12).any() == is_bold


def test_attention_has_a_figure_for_each_generator_in_bits(study, tmp_path):
    study.add_scores("ltd", 1, {"one": True})
    study.add_profile(["one", "two"], attention=True)
    page = report(study, tmp_path).page
    titles = re.findall(r"Divergence of attention between adjacent blocks: real images and (\w+)</title>", page)
    assert titles == ["one", "two"]
    assert "one: from 0.3 to 0.3, most at 0." in page  # bits, no percent


def test_hostile_names_are_inert_in_every_table(hostile_study, hostile, tmp_path):
    page = report(hostile_study, tmp_path, notes=[hostile["note"]]).page
    assert "'" + hostile["set"] in [row["set"] for row in read_csv(tmp_path / "tables" / "per_set.csv")]
    for path in tmp_path.rglob("*.csv"):
        cells = [cell for row in read_csv(path) for pair in row.items() for cell in pair]
        text = [cell for cell in cells if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)]
        assert not [cell for cell in text if cell.startswith(("=", "+", "-", "@"))], path
    for path in tmp_path.rglob("*.md"):
        text = path.read_text()
        assert "<" not in re.sub(r"<ins>[\d.]+</ins>", "", text)
        tables = [[len(re.findall(r"(?<!\\)\|", line)) for line in block.split("\n")] for block in text.split("\n\n")]
        assert all(len({count for count in block if count}) <= 1 for block in tables), path
    for path in tmp_path.rglob("*.tex"):
        body = [line for line in path.read_text().splitlines() if not line.startswith("%")]
        assert not re.search(r"(?<!\\)[#$%_^~<>|](?!\\pm\$)", " ".join(body).replace(r"$\pm$", "")), path
        rows = [line for line in body if line.endswith(r"\\") and "multi" not in line]
        assert len({len(re.findall(r"(?<!\\)&", line)) for line in rows}) == 1
    assert page.count("<script>") == 1
    assert not re.search(r"<(img|b onmouseover|svg onload)\b", page)


def test_windows_chosen_by_held_out_loss_are_a_table_of_the_page(study, tmp_path):
    losses = {3: [0.7], 4: [0.5, 0.25], 5: [0.6]}
    windows = [{"start": start, "held_out_losses": own} for start, own in losses.items()]
    selection = {"epochs": [2, 8], "windows": windows, "dropped_in_doubt": [5]}
    facts = {"window_start": 4, "window": 5, "window_selection": selection}
    study.add_scores("ltd", 1, SETS, facts=facts)
    page = report(study, tmp_path).page
    rows = read_csv(tmp_path / "tables" / "window_selection.csv")
    assert [list(row.values())[-4:] for row in rows] == [
        ["3 to 7", "", "2", "0.7"],
        ["4 to 8", "chosen", "8", "0.25"],
        ["5 to 9", "dropped in doubt", "2", "0.6"],
    ]
    assert "Windows chosen by held-out loss" in page


def test_other_detectors_stand_in_one_table_with_the_heads_over_the_sets_that_they_scored(study, tmp_path):
    sets = {"one": True, "two": True, "three": True}
    told = {"file": "x.csv", "rows": 60, "unmatched": 2, "ambiguous": 0, "images_without_score": 3}
    for seed in (0, 1):
        study.add_scores("ltd", seed, sets, shift=2.0)
    study.add_scores("rival", 0, sets, shift=0.5, facts={"external": {**told, "incomplete_sets": []}})
    partial = {name: sets[name] for name in ("one", "two")}
    study.add_scores("some", 0, partial, shift=0.5, facts={"external": {**told, "incomplete_sets": ["three"]}})
    made = report(study, tmp_path / "out", head_order=["ltd", "rival", "some"])
    rows = {(row["head"], row["metric"]): row for row in read_csv(made.out / "tables" / "main.csv")}
    covered = {head: rows[head, "AP"]["sets_in_mean"] for head in ("ltd", "rival", "some")}
    assert covered == {"ltd": "3", "rival": "3", "some": "2"}
    of_sets = {(row["head"], row["set"]) for row in read_csv(made.out / "tables" / "per_set.csv") if row["low"]}
    assert {("rival", "three"), ("some", "two")} <= of_sets
    assert ("some", "three") not in of_sets
    tests = read_csv(made.out / "tables" / "tests.csv")
    pairs = {(row["head"], row["other"], row["set"]) for row in tests if row["p_holm"]}
    assert {("ltd", "rival", "three"), ("ltd", "some", "one")} <= pairs
    assert ("ltd", "some", "three") not in pairs
    gains = {row["other head"] for row in read_csv(made.out / "tables" / "gains.csv")}
    assert gains == {"rival", "some"}  # over the sets of both
    assert "some on demo: scores of x.csv, 60 rows, 2 of no image" in made.page
    assert "3 images have no score, so these sets are left out: three." in made.page
