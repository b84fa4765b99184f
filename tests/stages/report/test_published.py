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


def test_all_peers_are_there():
    methods = " ".join(line["method"] for line in published()["means"])
    peers = "CNNSpot UnivFD FreqNet NPR RINE FatFormer ForgeLens Effort C2P-CLIP DRCT LTD"
    assert [peer for peer in peers.split() if peer not in methods] == []


@pytest.mark.parametrize(
    ("method", "trained_on", "mean"),
    [("RINE", "ProGAN, 1 class", 90.31), ("RINE", "ProGAN, 4 classes", 91.45)],
)
def test_the_rows_of_single_sets_average_to_the_published_mean(method, trained_on, mean):
    (line,) = [one for one in published()["sets"] if (one["method"], one["trained_on"]) == (method, trained_on)]
    values = [accuracy for accuracy, _ in line["values"].values()]
    assert len(values) == 20
    assert sum(values) / 20 == pytest.approx(mean, abs=0.05)


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


def test_a_mean_that_lacks_a_set_has_no_difference(study):
    study.add_scores("ltd", 1, dict.fromkeys(LISTS["genimage8"], False) | {"adm": True})
    results = load_results(study.scores)
    (covered,) = [one for one in covered_lists(results, LISTS) if one.name == "genimage8"]
    rows = {row[0]: row for row in mean_table(results, covered).blocks[0].rows}
    assert rows["ltd"][7] == "only 1 of 8 sets are defined"
    assert rows["LTD"][4] is None
    line = next(row for row in rows.values() if row[3] is not None and row[6] != HERE)
    assert line[5] is None


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


def test_sets_of_another_benchmark_are_not_compared_whatever_their_names(study):
    study.add_scores("ltd", 1, dict.fromkeys(LISTS["aigcdetect16"], True))
    results = load_results(study.scores)
    (covered,) = covered_lists(results, LISTS)
    assert covered.name == "aigcdetect16"
    assert any(tested.name in line["values"] for tested in covered.sets for line in published()["sets"])
    assert set_table(results, covered) is None


def claims(study):
    results = load_results(study.scores)
    table = reproduction_table(results, LISTS)
    return {} if table is None else {(row[0], row[3]): row for row in table.blocks[0].rows}


def score(study, sets, *, trained_on="progan", seed=1, corpus="test", **settings):
    sets = dict.fromkeys(sets, True) if isinstance(sets, (list, tuple)) else sets
    study.add_scores("ltd", seed, sets, corpus=corpus, facts={"trained_on": trained_on}, **settings)


def test_every_claim_names_a_known_list_and_a_figure():
    for claim in published()["claims"]:
        assert claim["set_list"] in LISTS
        assert 50 < claim["accuracy"] <= 100


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


@pytest.mark.parametrize(("beyond", "verdict"), [(0.4e-4, REPRODUCED), (0.6e-4, ONE_SEED)])
def test_a_published_figure_is_known_to_a_hundredth_of_a_percent(study, monkeypatch, beyond, verdict):
    score(study, LISTS["ufd16"], shift=0.8)
    low, high = (cell.value for cell in claims(study)["LTD on UFD", "accuracy"][6:8])
    for stated in (low - beyond, high + beyond):
        claim = {"what": "x", "head": "ltd", "trained_on": "progan", "set_list": "ufd16", "accuracy": 100 * stated}
        monkeypatch.setattr("stages.report.claims.published", lambda claim=claim: {"claims": [claim]})
        assert claims(study)["x", "accuracy"][9] == verdict


def test_what_is_not_measured_whole_is_not_compared_and_says_why(study):
    score(study, dict.fromkeys(LISTS["ufd16"], False) | {LISTS["ufd16"][0]: True})
    score(study, LISTS["genimage8"][:6], corpus="part")
    found = claims(study)
    assert found["LTD on UFD", "AP"][9] == "not compared: defined on 1 of 16 sets"
    row = found["LTD on GenImage, if trained on ProGAN", "accuracy"]
    assert (row[2], row[9]) == ("genimage8, 6 of 8 sets", "not compared: sets are missing")


def test_a_claim_is_compared_on_the_corpus_that_has_most_of_its_sets(study):
    score(study, LISTS["ufd16"][:2], corpus="a")
    score(study, LISTS["ufd16"])
    assert claims(study)["LTD on UFD", "accuracy"][2] == "ufd16, 16 of 16 sets"


def test_a_claim_is_about_the_head_of_its_own_training_alone(study):
    score(study, LISTS["drct13"], trained_on="sdv14")
    score(study, LISTS["ufd16"], trained_on="sdv14", corpus="ufd")
    assert ("LTD on UFD", "accuracy") not in claims(study)
    score(study, LISTS["drct13"], trained_on="progan")
    assert claims(study)["LTD on DRCT-2M", "AP"][1] == "ltd (sdv14)"


def test_the_page_counts_what_was_reproduced_and_says_how_to_make_it_again(study, tmp_path):
    for seed, shift in ((1, 0.7), (2, 0.8), (3, 0.9)):
        score(study, LISTS["ufd16"], seed=seed, shift=shift)
    about = Study(name="paper", set_lists=LISTS, reproduce=["dvc repro"])
    run(about, score_files=study.scores, profile_files=[], out=tmp_path / "out", replicates=50)
    page = (tmp_path / "out" / "REPRODUCTION.md").read_text()
    assert "0 of 2 compared figures are reproduced within their interval" in page
    assert "| LTD | 74.90 | 77.60 |" in page  # as others trained it
    assert "$ dvc repro" in page
    assert page.count("\n# ") == 0
    assert (tmp_path / "out" / "tables" / "reproduction.tex").exists()
    tables = dict.fromkeys(("reproduction", "claims", "elsewhere"))
    assert "tests no figure" in reproduction_page("demo", tables, [])
