"""The paper's claims beside what a study measured."""

import pytest

from stages.report.intervals import resample
from stages.report.published import published
from stages.report.reproduction import NOT_REPRODUCED, REPRODUCED, reproduction_page, reproduction_table
from stages.report.results import load_results
from stages.report.run import run
from stages.scan.set_lists import set_lists

LISTS = {name: found.members for name, found in set_lists().items()}


def rows_of(study, **settings):
    results = load_results(study.scores)
    table = reproduction_table(results, resample(results, replicates=200), LISTS)
    return {} if table is None else {(row[0], row[3]): row for row in table.blocks[0].rows}


def score(study, sets, *, head="ltd", trained_on="progan", **settings):
    study.add_scores(head, 1, dict.fromkeys(sets, True), corpus="test", facts={"trained_on": trained_on}, **settings)


def test_every_claim_names_a_known_list_and_a_figure():
    for claim in published()["claims"]:
        assert claim["set_list"] in LISTS
        assert 50 < claim["accuracy"] <= 100


def test_a_claim_within_the_interval_is_reproduced_and_one_outside_is_not(study):
    score(study, LISTS["ufd16"])
    rows = rows_of(study)
    accuracy = rows["LTD on UFD", "accuracy"]
    low, high, verdict = accuracy[6].value, accuracy[7].value, accuracy[9]
    assert low < high
    assert accuracy[4].value == pytest.approx(0.9690)
    assert accuracy[8].value == pytest.approx(accuracy[5].value - 0.9690)
    assert verdict == (REPRODUCED if low <= 0.9690 <= high else NOT_REPRODUCED)


@pytest.mark.parametrize(("shift", "verdict"), [(9.0, NOT_REPRODUCED), (0.0, NOT_REPRODUCED)])
def test_neither_a_perfect_nor_a_guessing_head_reproduces_the_paper(study, shift, verdict):
    score(study, LISTS["ufd16"], shift=shift)
    assert rows_of(study)["LTD on UFD", "accuracy"][9] == verdict


def test_missing_sets_are_told_and_not_compared(study):
    score(study, LISTS["genimage8"][:6])
    row = rows_of(study)["LTD on GenImage, if trained on ProGAN", "accuracy"]
    assert row[2] == "genimage8, 6 of 8 sets"
    assert row[9] == "not compared: sets are missing"


def test_a_head_of_another_training_is_not_taken_for_the_claimed_one(study):
    score(study, LISTS["ufd16"], trained_on="sdv14")
    assert ("LTD on UFD", "accuracy") not in rows_of(study)


def test_a_head_trained_on_several_corpora_is_found_by_its_label(study):
    score(study, LISTS["drct13"], trained_on="sdv14")
    score(study, LISTS["drct13"], trained_on="progan")
    assert rows_of(study)["LTD on DRCT-2M", "AP"][1] == "ltd (sdv14)"


def test_the_page_counts_what_was_reproduced_and_says_how_to_make_it_again(study, tmp_path):
    score(study, LISTS["ufd16"], shift=9.0)
    settings = {"set_lists": LISTS, "replicates": 50, "reproduce": ["dvc repro"]}
    run(study="paper", score_files=study.scores, profile_files=[], out=tmp_path / "out", **settings)
    page = (tmp_path / "out" / "REPRODUCTION.md").read_text()
    assert "0 of 2 compared figures are reproduced" in page
    assert "$ dvc repro" in page
    assert page.count("\n# ") == 0
    assert (tmp_path / "out" / "tables" / "reproduction.tex").exists()


def test_a_study_of_something_else_says_so():
    assert "tests no claim" in reproduction_page("demo", None, "", [])
