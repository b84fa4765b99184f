import pytest
from pydantic import TypeAdapter, ValidationError

from stages.heads.settings import (
    HeadSettings,
    LinearSettings,
    LtdSettings,
    Overrides,
    RineSettings,
    TrainSettings,
    UnivfdSettings,
)

adapter = TypeAdapter(HeadSettings)


def test_defaults_are_the_published_ones():
    settings = LtdSettings()
    assert [settings.candidates_for(blocks) for blocks in (24, 12, 32)] == [(11, 19), (5, 9), (15, 26)]
    assert (settings.window, settings.selection, settings.temperature, settings.anneal) == (5, "gumbel", 1.0, None)
    assert (settings.branches, settings.position, settings.dropout, settings.heads) == (("raw", "delta"), True, 0.3, 8)


def test_lists_of_yaml_become_tuples_and_come_back():
    given_settings = {"type": "ltd", "candidates": [3, 9], "anneal": [0.1, 1000], "branches": ["raw"]}
    settings = adapter.validate_python(given_settings)
    assert isinstance(settings, LtdSettings)
    assert (settings.candidates, settings.anneal, settings.branches) == ((3, 9), (0.1, 1000), ("raw",))
    assert adapter.validate_json(settings.model_dump_json()) == settings
    assert adapter.validate_python(settings.model_dump(mode="json")) == settings
    assert LtdSettings(branches=("delta", "raw")) == LtdSettings()  # in the classifier's order


WRONG = {
    "windows": [5],
    "window": ["5", 5.0, 0, 1],
    "candidates": [["11", "19"], [11], [-1, 8], [19, 11]],
    "selection": ["argmax", "fixed", "fixed:-1", "fixed:014", "fixed:1,", "fixed:1,2,3", "fixed:4,4", "uniform"],
    "temperature": [0, float("nan")],
    "anneal": [[0, 1000], [0.1, 0]],
    "selection_lr": [0],
    "branches": [[], ["raw", "raw"], ["cls"]],
    "position": ["yes"],
    "dropout": [1.0],
    "heads": [0],
}


def test_wrong_settings_of_heads_and_of_training_are_refused():
    wrong = [(LtdSettings, {name: value}) for name, values in WRONG.items() for value in values]
    wrong += [(LinearSettings, {"block": block}) for block in (-1, "first", 1.0, True, [3], "embedding")]
    wrong += [(TrainSettings, each) for each in ({"views": []}, {"views": ["cleen"]}, {"validation_view": "train:2"})]
    wrong += [
        (RineSettings, {"train": each}) for each in ({"epoch": 3}, {"epochs": 0}, {"views": ["clean"]}, {"lr": 0})
    ]
    for settings, given in wrong:
        with pytest.raises(ValidationError):
            settings.model_validate(given)


def test_a_method_trains_as_its_authors_did_and_a_head_may_say_otherwise():
    study = TrainSettings(lr=0.01, epochs=40, batch=64, validation_share=0.2)
    assert LtdSettings().training(study) == study
    rine = RineSettings().training(study)
    assert (rine.lr, rine.batch, rine.epochs) == (1e-3, 128, 1)
    assert rine.validation_share == 0.2
    settings = UnivfdSettings(train=Overrides(epochs=3))
    assert adapter.validate_json(settings.model_dump_json()) == settings
    univfd = settings.training(study)
    assert (univfd.lr, univfd.batch, univfd.epochs, univfd.patience) == (1e-4, 256, 3, 5)
