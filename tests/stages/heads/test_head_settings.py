import subprocess
import sys

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

adapter: TypeAdapter[HeadSettings] = TypeAdapter(HeadSettings)


def test_settings_are_read_without_torch() -> None:
    code = "import sys; import stages.heads.settings; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_type_chooses_the_family() -> None:
    assert isinstance(adapter.validate_python({"type": "ltd"}), LtdSettings)
    assert isinstance(adapter.validate_python({"type": "linear"}), LinearSettings)
    with pytest.raises(ValidationError, match="transformer"):
        adapter.validate_python({"type": "transformer"})


def test_defaults_are_the_published_ones() -> None:
    settings = LtdSettings()
    assert [settings.candidates_for(blocks) for blocks in (24, 12, 32)] == [(11, 19), (5, 9), (15, 26)]
    assert (settings.window, settings.selection, settings.temperature, settings.anneal) == (5, "gumbel", 1.0, None)
    assert (settings.branches, settings.position, settings.dropout, settings.heads) == (("raw", "delta"), True, 0.3, 8)


def test_lists_of_yaml_become_tuples_and_come_back() -> None:
    given_settings = {"type": "ltd", "candidates": [3, 9], "anneal": [0.1, 1000], "branches": ["raw"]}
    settings = adapter.validate_python(given_settings)
    assert isinstance(settings, LtdSettings)
    assert (settings.candidates, settings.anneal, settings.branches) == ((3, 9), (0.1, 1000), ("raw",))
    assert adapter.validate_json(settings.model_dump_json()) == settings
    assert adapter.validate_python(settings.model_dump(mode="json")) == settings
    assert hash(settings) == hash(adapter.validate_python(given_settings))


WRONG: dict[str, list[object]] = {
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


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_ltd_settings_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        LtdSettings.model_validate({name: value})


@pytest.mark.parametrize("block", [-1, "first", 1.0, True, [3], "embedding"])
def test_wrong_linear_blocks_are_refused(block: object) -> None:
    with pytest.raises(ValidationError):
        LinearSettings.model_validate({"block": block})


def test_messages_have_what_was_found() -> None:
    with pytest.raises(ValidationError, match=r"found \[19, 11\]"):
        LtdSettings(candidates=(19, 11))
    with pytest.raises(ValidationError, match="selection_lr has no effect with selection 'fixed:3'"):
        LtdSettings(selection="fixed:3", selection_lr=0.1)


def test_branches_are_kept_in_the_classifiers_order() -> None:
    assert LtdSettings(branches=("delta", "raw")) == LtdSettings()


def test_a_method_trains_as_its_authors_did_and_a_head_may_say_otherwise() -> None:
    study = TrainSettings(lr=0.01, epochs=40, batch=64, validation_share=0.2)
    assert LtdSettings().training(study) == study
    rine = RineSettings().training(study)
    assert (rine.lr, rine.batch, rine.epochs) == (1e-3, 128, 1)
    assert rine.validation_share == 0.2
    univfd = UnivfdSettings(train=Overrides(epochs=3)).training(study)
    assert (univfd.lr, univfd.batch, univfd.epochs, univfd.patience) == (1e-4, 256, 3, 5)


def test_what_a_head_sets_of_training_is_validated_and_comes_back() -> None:
    settings = adapter.validate_python({"type": "rine", "train": {"epochs": 3, "lr": 1}})
    assert settings.model_dump()["train"] == {"epochs": 3, "lr": 1.0}
    assert adapter.validate_json(settings.model_dump_json()) == settings
    for wrong in ({"epoch": 3}, {"epochs": 0}, {"views": ["clean"]}, {"optimizer": "adamw"}, {"lr": 0}):
        with pytest.raises(ValidationError):
            adapter.validate_python({"type": "rine", "train": wrong})


@pytest.mark.parametrize("wrong", [{"views": []}, {"views": ["cleen"]}, {"validation_view": "train:2"}, {"lr": "1"}])
def test_wrong_training_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings.model_validate(wrong)
    assert TrainSettings.model_validate({"views": ["train:5"], "validation_view": "val"}).views == ("train:5",)
