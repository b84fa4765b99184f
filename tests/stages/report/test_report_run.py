import csv
import io
import json
import re
from types import SimpleNamespace
from unittest.mock import ANY

import numpy as np
import pytest
from rich.console import Console

from stages.measure.metrics import METRICS
from stages.report.intervals import resample
from stages.report.results import load_results
from stages.report.run import run
from stages.report.set_figures import MOST_HEADS
from stages.report.study import Study
from stages.report.terminal import result_table

SETS = {"one": True, "two": True, "fakes only": False}


def _run(study, out, **settings):
    about = Study(name="demo", **settings)
    return run(about, score_files=study.scores, profile_files=study.profiles, out=out, replicates=100)


def _csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _printed(table, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


@pytest.fixture(scope="module")
def made(plain_study, tmp_path_factory):
    """The report of the plain study: its folder, and what metrics.json holds."""
    out = tmp_path_factory.mktemp("made")
    (out / "tables").mkdir()
    (out / "tables" / "robustness.csv").write_text("of an earlier run")
    metrics = _run(plain_study, out, head_order=["ltd"], set_order=["two", "one"])
    return SimpleNamespace(out=out, metrics=metrics, page=(out / "report.html").read_text())


def test_two_runs_give_the_same_bytes_whatever_the_order_of_the_files(plain_study, made, tmp_path):
    about = Study(name="demo", head_order=["ltd"], set_order=["two", "one"])
    shuffled = {"score_files": plain_study.scores[::-1], "profile_files": plain_study.profiles}
    run(about, **shuffled, out=tmp_path, replicates=100)
    files = sorted(path.relative_to(made.out) for path in made.out.rglob("*.*"))
    named, formats = ("main", "per_set", "tests", "layer_transitions"), ("csv", "json", "md", "tex")
    expected = [f"tables/{name}.{suffix}" for name in named for suffix in formats]
    expected += ["tables/metrics.json", "tables/per_seed.csv", "tables/windows.csv"]
    # the table of an earlier run is gone
    assert sorted(map(str, files)) == sorted(
        ["metrics.json", "plots/sets.csv", "report.html", "REPRODUCTION.md", *expected]
    )
    assert all((made.out / path).read_bytes() == (tmp_path / path).read_bytes() for path in files)


def test_metrics_json_holds_numbers_only_and_no_undefined_one(made):
    written = json.loads((made.out / "metrics.json").read_text())
    assert written == made.metrics
    leaves = [value for lines in written.values() for line in lines.values() for value in line.values()]
    assert all(isinstance(value, (int, float)) for value in leaves)
    assert list(written["ltd"]) == ["demo", "demo/two", "demo/one", "demo/fakes only"]
    assert "ap" not in written["ltd"]["demo/fakes only"]
    assert (written["ltd"]["demo"]["ap_sets"], written["ltd"]["demo"]["sets"]) == (2, 3)
    assert written["ltd"]["demo"]["ap"] == pytest.approx(
        (written["ltd"]["demo/one"]["ap"] + written["ltd"]["demo/two"]["ap"]) / 2
    )


def test_the_full_metrics_hold_every_seed_and_the_reasons(made):
    full = json.loads((made.out / "tables" / "metrics.json").read_text())
    ap = full["linear"]["demo/one"]["ap"]
    assert ap["mean"] == pytest.approx(sum(ap["seeds"].values()) / 2)
    assert full["linear"]["demo/fakes only"]["ap"] == {
        "mean": None, "std": None, "interval": None, "seeds": {"1": None, "2": None}, "undefined": "no real images",
    }  # fmt: skip
    low, high = ap["interval"]
    assert low <= ap["mean"] <= high
    assert low < high


def test_the_main_table_has_a_line_per_head_and_metric_and_says_what_the_mean_covers(made):
    metrics = made.metrics
    rows = _csv(made.out / "tables" / "main.csv")
    assert [(row["head"], row["metric"]) for row in rows[:4]] == [
        ("ltd", "AP"), ("linear", "AP"), ("ltd", "accuracy"), ("linear", "accuracy"),
    ]  # fmt: skip
    assert list(rows[0])[3:6] == ["two", "one", "fakes only"]
    assert (rows[0]["fakes only"], rows[0]["sets_in_mean"], rows[0]["sets"]) == ("", "2", "3")
    assert float(rows[0]["mean"]) == metrics["ltd"]["demo"]["ap"]
    text = (made.out / "tables" / "main.md").read_text()
    best = max(metrics, key=lambda head: metrics[head]["demo"]["ap"])
    assert f"| **{100 * metrics[best]['demo']['ap']:.2f}** |" in text
    assert "| head | seeds | two | one | fakes only | mean | mean\\_std | sets\\_in\\_mean | sets |" in text
    assert re.search(r"\| ltd \| 2 \| .*\| undefined \| .* \| 2 \| 3 \|", text)
    assert "one: 12 real, 10 synthetic" in text


def test_the_long_tables_hold_every_value(made):
    metrics = made.metrics
    per_set = _csv(made.out / "tables" / "per_set.csv")
    per_seed = _csv(made.out / "tables" / "per_seed.csv")
    assert (len(per_set), len(per_seed)) == (2 * 3 * len(METRICS), 2 * 3 * 2)
    row = next(row for row in per_set if (row["head"], row["set"], row["metric"]) == ("ltd", "one", "ap"))
    assert float(row["mean"]) == metrics["ltd"]["demo/one"]["ap"]
    assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    assert (row["n_real"], row["n_fake"], row["seeds_in_mean"], row["undefined"]) == ("12", "10", "2", "")
    seeds = [float(row["ap"]) for row in per_seed if (row["head"], row["set"]) == ("ltd", "one")]
    assert float(row["mean"]) == pytest.approx(sum(seeds) / 2)
    assert {row["view"] for row in per_seed} == {"test"}
    undefined = {row["set"]: (row["undefined"], row["mean"]) for row in per_set if row["metric"] == "ap"}
    assert undefined == {"one": ("", ANY), "two": ("", ANY), "fakes only": ("no real images", "")}


def test_degraded_views_make_a_table_of_what_is_lost(study, tmp_path):
    views = ("clean", "jpeg-90", "jpeg-60", "jpeg-30", "webp-80", "webp-50", "blur-1", "blur-2", "scale-0.5+jpeg-70")
    for strength, view in enumerate(views):
        study.add_scores("ltd", 1, SETS, view=view, shift=2.0 / (strength + 1))
    metrics = _run(study, tmp_path)
    rows = [row for row in _csv(tmp_path / "tables" / "robustness.csv") if row["metric"] == "AP"]
    assert [row["view"] for row in rows] == list(views)
    assert float(rows[0]["mean"]) == metrics["ltd"]["demo"]["ap"]
    assert float(rows[2]["relative to clean"]) == pytest.approx(float(rows[2]["mean"]) - float(rows[0]["mean"]))
    paper = _csv(tmp_path / "tables" / "robustness_paper_grid.csv")
    assert {row["view"] for row in paper} == {"clean", "jpeg-90", "jpeg-60"}
    page = (tmp_path / "report.html").read_text()
    assert "AP against JPEG quality" in page
    assert "ltd: from" in page


def test_a_view_that_lacks_a_set_is_compared_over_the_sets_that_it_has(study, tmp_path):
    study.add_scores("ltd", 1, SETS, view="clean", shift=2.0)
    study.add_scores("ltd", 1, {"one": True}, view="matched-size", shift=1.0)
    metrics = _run(study, tmp_path)
    rows = [row for row in _csv(tmp_path / "tables" / "robustness.csv") if row["metric"] == "AP"]
    assert [(row["degradation"], row["sets_in_mean"]) for row in rows] == [("none", "2"), ("files alike", "1")]
    lost = float(rows[1]["mean"]) - metrics["ltd"]["demo/one"]["ap"]
    assert float(rows[1]["relative to clean"]) == pytest.approx(lost)
    assert "Degraded views" not in (tmp_path / "report.html").read_text()


def test_means_over_different_sets_are_not_drawn_as_one_line(study, tmp_path):
    study.add_scores("ltd", 1, SETS, view="clean")
    study.add_scores("ltd", 1, {"one": True}, view="jpeg-60")
    _run(study, tmp_path)
    assert "against JPEG quality" not in (tmp_path / "report.html").read_text()


def test_a_test_on_training_images_is_said_to_be_one(study, tmp_path):
    study.add_scores("ltd", 1, SETS, facts={"trained_on": "demo", "tested_images": "trained"})
    study.add_scores("linear", 1, SETS, facts={"trained_on": "elsewhere"})
    _run(study, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "ltd (demo): tested images of corpus demo trained these heads; do not trust their numbers" in text
    assert "linear (elsewhere): tested images" not in text


def test_the_headline_interval_is_narrower_than_that_of_one_set(plain_study):
    results = load_results(plain_study.scores)
    uncertainty = resample(results, replicates=300)
    head = results.heads[0]
    low, high = uncertainty.of_sets(head, "ap", results.sets)
    assert low < results.of_corpus(head, "ap", "demo").value < high
    sets = [uncertainty.of_set(head, tested, "ap") for tested in results.sets if tested.name != "fakes only"]
    assert high - low < max(set_high - set_low for set_low, set_high in sets)
    assert uncertainty.of_set(head, results.sets[0], "ece") is None


def test_heads_are_tested_in_pairs_and_corrected_over_the_sets(made):
    rows = _csv(made.out / "tables" / "tests.csv")
    assert {(row["head"], row["other"], row["set"]) for row in rows} == {
        ("ltd", "linear", "one"), ("ltd", "linear", "two"),
    }  # fmt: skip
    assert [row["metric"] for row in rows] == ["AP", "AP", "ROC AUC", "ROC AUC", "accuracy", "accuracy"]
    assert {row["of"] for row in rows} == {"methods"}
    for row in rows:
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        assert float(row["p"]) <= float(row["p_holm"]) <= 1


def test_audit_warnings_and_unmoved_windows_are_printed_on_top(study, tmp_path):
    study.add_scores("ltd", 1, {"one": True}, facts={"window_moved": False})
    study.add_scores("linear", 1, {"one": True})
    audit = {"corpus": "demo", "warnings": [{"kind": "format", "set": "one", "text": "reals are <JPEG>, fakes PNG"}]}
    _run(study, tmp_path, audits=[audit])
    page = (tmp_path / "report.html").read_text()
    assert "Audit of demo/one: reals are &lt;JPEG&gt;, fakes PNG" in page
    assert "<li>ltd: for some seed, training left the random initial window unchanged.</li>" in page


def test_the_best_head_is_named_first_and_bold(study, tmp_path):
    for head, shift in (("good", 2.0), ("poor", 0.1)):
        study.add_scores(head, 1, SETS, view="clean", shift=shift)
    metrics = _run(study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    ap = {head: metrics[head]["demo"]["ap"] for head in metrics}
    assert f"good has the highest mean AP, {100 * ap['good']:.2f} % over 2 of 3 sets. Its accuracy" in page
    full = json.loads((tmp_path / "tables" / "metrics.json").read_text())
    ece = {head: np.mean([full[head][f"demo/{name}"]["ece"]["mean"] for name in ("one", "two")]) for head in full}
    bold = np.array([float(value) for value in re.findall(r'<td class="best" data-value="([\d.]+)"', page)])
    for value, is_bold in (
        (ap["good"], True),
        (ap["poor"], False),
        (min(ece.values()), True),
        (max(ece.values()), False),
    ):
        assert np.isclose(bold, value, rtol=1e-12).any() == is_bold


def test_a_head_whose_interval_overlaps_that_of_the_best_is_not_separable_from_it(made):
    pattern = r"over 2 of 3 sets, but is not separable from (ltd|linear): the 95 % intervals overlap"
    assert re.search(pattern, made.page)


def test_nobody_is_best_where_means_cover_different_sets(study, tmp_path):
    for corpus, head, shift in (("one", "good", 2.0), ("one", "poor", 0.1), ("two", "good", 1.0)):
        study.add_scores(head, 1, {"x": True}, corpus=corpus, view="clean", shift=shift)
    metrics = _run(study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert f'class="best" data-value="{metrics["good"]["one"]["ap"]}"' in page
    assert f'data-value="{metrics["good"]["two"]["ap"]}"' in page
    assert f'class="best" data-value="{metrics["good"]["two"]["ap"]}"' not in page


def test_a_generator_called_real_is_not_taken_for_the_real_images(study, tmp_path):
    study.add_scores("ltd", 1, {"one": True})
    study.add_profile(["real"])
    _run(study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Cosine similarity between adjacent blocks: real images and real</title>" in page
    assert "10 real, 10 synthetic" in page


def test_plot_data_names_each_bar(made):
    rows = _csv(made.out / "plots" / "sets.csv")
    assert [row["result"] for row in rows if row["set"] == "one"] == ["one: ltd", "one: linear"]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows if row["set"] != "fakes only")


def test_one_seed_has_no_spread(study, tmp_path):
    study.add_scores("ltd", 1, {"one": True})
    metrics = _run(study, tmp_path)
    assert not [name for line in metrics["ltd"].values() for name in line if name.endswith("_std")]
    page = (tmp_path / "report.html").read_text()
    assert "one seed per head" in page
    assert "±" not in (tmp_path / "tables" / "main.csv").read_text()


def test_hostile_names_are_inert_in_every_table(hostile_study, hostile, tmp_path):
    _run(hostile_study, tmp_path, notes=[hostile["note"]])
    assert "'" + hostile["set"] in [row["set"] for row in _csv(tmp_path / "tables" / "per_set.csv")]
    for path in tmp_path.rglob("*.csv"):
        cells = [cell for row in _csv(path) for pair in row.items() for cell in pair]
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
        assert (
            len({len(re.findall(r"(?<!\\)&", line)) for line in body if line.endswith(r"\\") and "multi" not in line})
            == 1
        )
    page = (tmp_path / "report.html").read_text()
    assert page.count("<script>") == 1
    assert not re.search(r"<(img|b onmouseover|svg onload)\b", page)


def test_the_page_asks_for_nothing_from_anywhere(made):
    assert not re.search(r"(src|href|url|@import|xlink)\s*[=(:]\s*[\"']?(?!#)(https?:|//|file:)", made.page)
    assert "http" not in made.page.replace("http-equiv", "")


def test_the_terminal_table_shows_what_metrics_json_holds(made):
    metrics = made.metrics
    text = _printed(result_table(json.loads(json.dumps(metrics))))
    line = metrics["ltd"]["demo/one"]
    assert f"{line['ap']:.3f} / {line['accuracy']:.3f}" in text
    assert re.search(r"fakes only\W+undefined / undefined", text)
    assert "2 of 3" in text


def test_four_heads_fit_a_terminal_of_80_columns_and_more_are_its_rows():
    line = {"ap": 1.0, "accuracy": 0.5}
    mean = line | {"ap_sets": 1, "accuracy_sets": 1, "sets": 1}
    heads = ["ltd", "ltd-raw", "ltd-delta", "linear", *(f"head {number}" for number in range(20))]
    few = {head: {"demo-test": mean, "demo-test/bilinear": line} for head in heads[:4]}
    text = _printed(result_table(few), width=80)
    assert text.count("1.000 / 0.500") == 8
    assert len(text.splitlines()) == 7  # title, head, rule, set, rule, mean, sets: nothing is broken in two
    many = {head: {"demo-test": mean, "demo-test/bilinear": line, "ufd": mean} for head in heads}
    text = _printed(result_table(many), width=80)
    assert text.count("1.000 / 0.500") == 24 * 2
    assert len(text.splitlines()) == 24 + 3


def test_the_terminal_obeys_no_name(study, tmp_path):
    study.add_scores("[red]head[/red]", 1, {"\x1b[31mred\x07": True})
    metrics = _run(study, tmp_path)
    text = _printed(result_table(metrics, title="[b]"))
    assert "[red]head[/red]" in text
    assert "\\x1b[31mred\\x07" in text
    assert "\x1b" not in text


def test_tables_too_long_for_a_page_are_left_to_the_files_beside_it(plain_study, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.report.html.MOST_ROWS", 1)
    _run(plain_study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "rows, too many for a page: see tables/per_set.csv" in page
    assert "rows, too many for a page: see tables/tests.csv" in page
    assert (tmp_path / "tables" / "tests.csv").exists()


def test_curves_are_drawn_for_the_first_heads_and_the_page_says_so(study, tmp_path):
    for number in range(MOST_HEADS + 2):
        study.add_scores(f"head{number}", 1, {"one": True})
    _run(study, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert f"Drawn for the first {MOST_HEADS} heads" in page
    assert "logits of head0" in page
    assert f"logits of head{MOST_HEADS}" not in page


def test_windows_chosen_by_held_out_loss_are_a_table_of_the_page(study, tmp_path):
    windows = [{"start": 3, "held_out_losses": [0.7]}, {"start": 4, "held_out_losses": [0.5, 0.25]}]
    facts = {"window_start": 4, "window": 5, "window_selection": {"epochs": [2, 8], "windows": windows}}
    study.add_scores("ltd", 1, SETS, facts=facts)
    _run(study, tmp_path / "out")
    rows = _csv(tmp_path / "out" / "tables" / "window_selection.csv")
    assert [list(row.values())[-4:] for row in rows] == [["3 to 7", "", "2", "0.7"], ["4 to 8", "chosen", "8", "0.25"]]
    assert "Windows chosen by held-out loss" in (tmp_path / "out" / "report.html").read_text()
