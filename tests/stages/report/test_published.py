import pytest

from stages.report.claims import NOT_REPRODUCED, ONE_SEED, REPRODUCED, reproduction_page, reproduction_table
from stages.report.load import load_results
from stages.report.published import HERE, covered_lists, mean_table, published, set_table
from stages.report.run import run
from stages.report.study import Study
from stages.scan.protocols import set_lists

LISTS = {name: found.members for name, found in set_lists().items()}


def test_every_published_figure_has_its_list_its_source_and_a_plausible_value():
    for line in published()["means"]:
        assert line["set_list"] in LISTS, line
        assert line["source"], line
        assert line["mark"] in ("read", "computed", "secondary"), line
        values = [line[metric] for metric in ("accuracy", "ap") if line[metric] is not None]
        assert values, line
        assert all(39 < value <= 100 for value in values), line
    for line in published()["sets"]:
        assert line["source"], line
        assert set(line["values"]) <= set(LISTS[line["set_list"]]), line


def test_each_published_figure_stands_under_its_metric_and_set():
    line = next(line for line in published()["means"] if (line["method"], line["set_list"]) == ("LTD", "ufd16"))
    assert (line["trained_on"], line["accuracy"], line["ap"]) == ("ProGAN, 2 classes", 96.9, 99.51)
    line = next(line for line in published()["sets"] if line["method"] == "Effort" and line["set_list"] == "ufd20")
    assert (line["values"]["stylegan"], line["values"]["dalle"]) == ((95.05, 99.77), (98.05, None))
    assert "stylegan2" not in line["values"]  # not published


@pytest.fixture
def genimage(study):
    sets = dict.fromkeys([*LISTS["genimage8"], "mine"], True)
    for head in ("ltd", "linear"):
        study.add_scores(head, 1, sets, facts={"trained_on": "sdv1.4"})
    return study


def test_a_list_counts_only_when_one_corpus_covers_all_of_it(genimage):
    results = load_results(genimage.scores)
    found = {covered.name: covered for covered in covered_lists(results, LISTS)}
    assert set(found) == {"genimage8", "genimage7"}
    assert [tested.name for tested in found["genimage8"].sets] == list(LISTS["genimage8"])


def test_measured_and_published_stand_side_by_side_with_the_difference(genimage):
    results = load_results(genimage.scores, heads=["ltd"])
    (covered,) = [one for one in covered_lists(results, LISTS) if one.name == "genimage8"]
    rows = {row[0]: row for row in mean_table(results, covered).blocks[0].rows}
    assert rows["ltd"][1] == "sdv1.4"
    assert rows["ltd"][6] == HERE
    measured = results.of_sets("ltd", "accuracy", covered.sets).value
    assert rows["LTD"][2].value == pytest.approx(0.9162)
    assert rows["LTD"][4].value == pytest.approx(measured - 0.9162)
    assert "secondary" in rows["LTD"][6]
    assert rows["NPR"][3] is None
    by_set = set_table(results, covered)
    npr = next(row for row in by_set.blocks[0].rows if str(row[0]).startswith("NPR"))
    assert [cell.value for cell in npr[2:]] == pytest.approx([0.81, 0.982, 0.979, 0.769, 0.898, 0.969, 0.841, 0.842])


def test_the_report_shows_them_and_the_ablation_of_the_paper(genimage, tmp_path):
    for name in ("ltd-raw", "ltd-plain"):
        genimage.add_scores(name, 1, dict.fromkeys([*LISTS["genimage8"], "mine"], True), shift=0.2)
    cards = {
        "ltd": {"type": "ltd", "branches": ["raw", "delta"], "position": True, "window": 5},
        "ltd-raw": {"type": "ltd", "branches": ["raw"], "position": True, "window": 5},
        "ltd-plain": {"type": "ltd", "branches": ["raw", "delta"], "position": False, "window": 5},
        "linear": {"type": "linear"},
    }
    about = Study(name="s", head_order=["ltd"], set_lists=LISTS, head_settings=cards)
    run(about, score_files=genimage.scores, profile_files=[], out=tmp_path, replicates=20)
    page = (tmp_path / "report.html").read_text()
    assert "Published and measured: genimage8" in page
    assert "published, read in a secondary source" in page
    text = (tmp_path / "tables" / "ablation.md").read_text()
    assert "| ltd | yes | yes | yes |" in text
    assert "| ltd-raw | yes | no | yes |" in text
    assert "linear" not in text
    assert "| ltd-plain | yes | yes | no |" in text
    assert all("**" in line.rpartition(" | ")[2] for line in text.splitlines() if line.startswith("| ltd |"))
    assert "96.90" in (tmp_path / "tables" / "ablation_published.md").read_text()


def claims(study):
    results = load_results(study.scores)
    table = reproduction_table(results, LISTS)
    return {} if table is None else {(row[0], row[3]): row for row in table.blocks[0].rows}


def score(study, sets, *, trained_on="progan", seed=1, corpus="test", **settings):
    sets = dict.fromkeys(sets, True) if isinstance(sets, (list, tuple)) else sets
    study.add_scores("ltd", seed, sets, corpus=corpus, facts={"trained_on": trained_on}, **settings)


@pytest.mark.parametrize(
    ("shifts", "verdict"),
    [((9.0,), ONE_SEED), ((0.0,), ONE_SEED), ((1.2, 2.0, 2.8), REPRODUCED), ((0.7, 0.8), NOT_REPRODUCED)],
)
def test_a_claim_is_reproduced_within_the_interval_which_holds_the_spread_over_trainings(study, shifts, verdict):
    for seed, shift in enumerate(shifts):
        score(study, LISTS["ufd16"], seed=seed, shift=shift)
    row = claims(study)["LTD on UFD", "accuracy"]
    stated, here, low, high, difference = (cell.value for cell in row[4:9])
    assert stated == pytest.approx(0.9690)
    assert difference == pytest.approx(here - stated)
    assert low <= here <= high
    assert (low <= stated <= high) == (verdict == REPRODUCED)
    assert row[9] == verdict


def test_what_is_not_measured_whole_is_not_compared_and_says_why(study):
    score(study, dict.fromkeys(LISTS["ufd16"], False) | {LISTS["ufd16"][0]: True})
    score(study, LISTS["genimage8"][:6], corpus="part")
    found = claims(study)
    assert found["LTD on UFD", "AP"][9] == "not compared: defined on 1 of 16 sets"
    row = found["LTD on GenImage, if trained on ProGAN", "accuracy"]
    assert (row[2], row[9]) == ("genimage8, 6 of 8 sets", "not compared: sets are missing")


def test_the_page_counts_what_was_reproduced_and_says_how_to_make_it_again(study, tmp_path):
    for seed, shift in ((1, 0.7), (2, 0.8), (3, 0.9)):
        score(study, LISTS["ufd16"], seed=seed, shift=shift)
    about = Study(name="paper", set_lists=LISTS)
    run(about, score_files=study.scores, profile_files=[], out=tmp_path / "out", replicates=50)
    page = (tmp_path / "out" / "REPRODUCTION.md").read_text()
    assert "0 of 2 compared figures are reproduced within their interval" in page
    assert "| LTD | 74.90 | 77.60 |" in page  # as others trained it
    assert "`dvc repro` makes it again" in page
    assert page.count("\n# ") == 0
    assert (tmp_path / "out" / "tables" / "reproduction.tex").exists()
    tables = dict.fromkeys(("reproduction", "claims", "elsewhere"))
    assert "tests no figure" in reproduction_page("demo", tables)
