import csv
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from planted import SPEC, in_transitions, write_view
from sklearn.metrics import average_precision_score

from pipeline.cli import ltdpipe
from stages.train import run as train_run
from stages.train.data import TrainingData
from stages.train.feed import Feed
from stages.train.heads import Head, HeadSettings, build_head
from stages.train.heads.settings import (
    LayerTransformerSettings,
    LinearSettings,
    LtdSettings,
    RineSettings,
    UnivfdSettings,
)
from stages.train.loop import fit, logits_of
from stages.train.settings import Overrides, TrainSettings
from stages.train.sweep import run as sweep_run
from stages.train.sweep import tested
from stages.train.sweep.together import Stack, fit_together, seconds_a_step
from stages.train.sweep.variants import layer_sweep, product, window_sweep
from storage.errors import DataError, SettingError
from storage.features import FeatureTable
from storage.headfile import load_head

SETTINGS = TrainSettings(lr=2e-3, epochs=2, batch=32, validation_share=0.25)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(folder / "store"))
        write_view(folder / "train" / "clean", *in_transitions(160, seed=0))
        write_view(folder / "test" / "clean", *in_transitions(120, seed=5), sets=("a", "b"), seed=5)
    return folder


def sweep(corpora: Path, out: Path, reporter: Any, variants: Any, **more: Any) -> list[dict[str, Any]]:
    clean = corpora / "train" / "clean"
    given = {"evaluation": [corpora / "test" / "clean"], "settings": SETTINGS, "seeds": [0, 1], **more}
    return sweep_run.run(
        views=[clean],
        validation_view=clean,
        variants=variants,
        out=out,
        reporter=reporter,
        **given,
    )


def test_the_window_sweep_has_every_start_of_every_length() -> None:
    whole = window_sweep(LtdSettings(dropout=0.1), 24)
    assert len(whole) == sum(24 - n + 1 for n in range(3, 10)) == 133
    assert {variant.head.dropout for variant in whole if isinstance(variant.head, LtdSettings)} == {0.1}
    some = window_sweep(LtdSettings(candidates=(11, 14), selection_lr=0.1, anneal=(0.1, 5)), 24)
    found = [(variant.coordinates["n"], variant.coordinates["start"]) for variant in some]
    assert found == [(3, 11), (3, 12), (4, 11)]
    reads = [build_head(variant.head, blocks=24, width=32, embedding=8).reads.blocks for variant in some]
    assert reads == [(11, 12, 13), (12, 13, 14), (11, 12, 13, 14)]


def test_the_layer_sweep_has_every_block() -> None:
    probes = layer_sweep(LinearSettings(train=Overrides(lr=0.5)), 4)
    assert [probe.coordinates for probe in probes] == [{"block": block} for block in range(4)]
    assert all(probe.head.train.lr == 0.5 for probe in probes)


def test_heads_times_settings() -> None:
    variants = product({"ltd": LtdSettings(), "l": LtdSettings(position=False)}, {"window": [3, 4], "train.lr": [0.1]})
    assert [str(variant) for variant in variants][:2] == [
        "head=ltd window=3 train.lr=0.1",
        "head=ltd window=4 train.lr=0.1",
    ]
    assert variants[3].head == LtdSettings(position=False, window=4, train=Overrides(lr=0.1))


def test_a_swept_head_is_the_head_that_train_makes(corpora: Path, tmp_path: Path, reporter: Any) -> None:
    head = LtdSettings(heads=4, window=4, selection="fixed:15")
    variants = product({"x": LtdSettings(heads=4, window=4)}, {"selection": ["fixed:3", "fixed:15"]})
    variants += product({"y": UnivfdSettings(), "z": RineSettings(depth=1, project=8)}, {"selection": []})
    rows = sweep(corpora, tmp_path / "s", reporter, variants)
    (found,) = [row for row in rows if (row["selection"], row["seed"], row["set"]) == ("fixed:15", 1, "b")]

    clean = corpora / "train" / "clean"
    out = tmp_path / "head.safetensors"
    train_run.run(
        views=[clean],
        validation_view=clean,
        name="x",
        head=head,
        settings=SETTINGS,
        seed=1,
        out=out,
        reporter=reporter,
    )
    module, test = build_head(head, blocks=24, width=32, embedding=16), FeatureTable.open(corpora / "test" / "clean")
    module.load_state_dict(load_head(out)[0])
    with torch.inference_mode():
        logits = module.eval()(torch.from_numpy(test.read("cls", blocks=module.reads.blocks)).float()).numpy()
    labels = test.index["label"].to_numpy()
    assert found["ap"] == pytest.approx(average_precision_score(labels, logits), abs=1e-12)
    assert found["accuracy"] == ((logits > 0) == labels).mean()
    assert found["images"] == 120
    assert found["together"] is False


def test_results_are_a_table_and_a_plot(corpora: Path, tmp_path: Path, reporter: Any) -> None:
    variants = window_sweep(LtdSettings(heads=4, candidates=(13, 17)), 24)
    rows = sweep(corpora, tmp_path / "s", reporter, variants)
    table = list(csv.DictReader((tmp_path / "s" / "results.csv").read_text().splitlines()))
    assert len(table) == len(rows) == 6 * 2 * 3  # windows, seeds, two sets and their mean
    assert [float(row["ap"]) for row in table] == [row["ap"] for row in rows]
    for row in rows:
        if row["set"] == "mean of sets":
            same = [r for r in rows if all(r[key] == row[key] for key in ("n", "start", "seed")) and r["set"] in "ab"]
            assert row["ap"] == pytest.approx(sum(r["ap"] for r in same) / 2)
    drawn = ET.fromstring((tmp_path / "s" / "plot.svg").read_text())
    lines = drawn.findall(".//{http://www.w3.org/2000/svg}polyline")
    points = [[tuple(map(float, point.split(","))) for point in line.attrib["points"].split()] for line in lines]
    assert [len(line) for line in points] == [3, 2, 1] * 2
    assert all(40 <= y <= 300 for line in points for _, y in line)  # within the axes
    texts = [text.text for text in drawn.findall(".//{http://www.w3.org/2000/svg}text")]
    assert {"Accuracy", "Average precision", "start", "n = 3", "n = 5"} <= set(texts)
    assert reporter.done == 12


def test_a_stopped_sweep_trains_only_what_is_missing(
    corpora: Path, tmp_path: Path, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = layer_sweep(LinearSettings(), 3)
    whole = sweep(corpora, tmp_path / "whole", reporter, variants)
    trained: list[int] = []

    def counting(*arguments: Any, **more: Any) -> Any:
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(1)
        return fit(*arguments, **more)

    monkeypatch.setattr(sweep_run, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        sweep(corpora, tmp_path / "s", reporter, variants)
    trained[:] = []
    assert sweep(corpora, tmp_path / "s", reporter, variants) == whole
    assert len(trained) == 2
    trained[:] = [1] * 4
    others: list[dict[str, Any]] = [
        {"settings": SETTINGS.model_copy(update={"lr": 0.1})},
        {"threads": 2},
        {"evaluation": [corpora / "train" / "clean"]},
    ]
    for other in others:
        with pytest.raises(KeyboardInterrupt):  # nothing of what was found otherwise may be used
            sweep(corpora, tmp_path / "s", reporter, variants, **other)
    trained[:] = []
    (tmp_path / "s" / "sweep.json").write_text("{")
    with pytest.raises(KeyboardInterrupt):
        sweep(corpora, tmp_path / "s", reporter, variants)


def test_corpora_that_the_heads_cannot_be_scored_on_are_refused(corpora: Path, tmp_path: Path, reporter: Any) -> None:
    trained, (tokens, labels) = FeatureTable.open(corpora / "train" / "clean"), in_transitions(40, seed=1)
    unknown = labels.copy()
    unknown[3] = -1
    for name, given, more, message in (
        ("fp16", labels, {"spec": replace(SPEC, precision="fp16")}, r"cannot be scored .*precision: fp32 here, fp16"),
        ("unknown", unknown, {}, "holds images without a label, which cannot be evaluated"),
        ("real", 0 * labels, {}, "no test set of .*real has images of both classes"),
    ):
        view = write_view(tmp_path / name, tokens, given, **more)  # type: ignore[arg-type]
        with pytest.raises(DataError, match=message):
            tested.TestCorpus.open(view, trained, reporter)


def test_sets_of_one_class_are_told_and_left_out_and_a_corpus_without_sets_is_one(
    corpora: Path, tmp_path: Path, reporter: Any
) -> None:
    trained, (tokens, labels) = FeatureTable.open(corpora / "train" / "clean"), in_transitions(40, seed=1)
    some = write_view(tmp_path / "some", tokens, labels, sets=("a",), synthetic_sets=("fakes",))
    assert list(tested.TestCorpus.open(some, trained, reporter).sets) == ["a"]
    assert reporter.warnings == [f"{some}: sets of one class have no accuracy or AP here: fakes"]
    without = tested.TestCorpus.open(write_view(tmp_path / "none", tokens, labels), trained, reporter)
    assert {name: len(rows) for name, rows in without.sets.items()} == {"planted": 40}


def test_what_is_held_of_all_corpora_together_is_within_the_memory(
    corpora: Path, tmp_path: Path, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[int] = []
    make = Feed.__init__

    def recording(feed: Feed, *arguments: Any, budget: int, **more: Any) -> None:
        budgets.append(budget)
        make(feed, *arguments, budget=budget, **more)

    monkeypatch.setattr(Feed, "__init__", recording)
    tests = [corpora / "test" / "clean", corpora / "train" / "clean"]
    sweep(corpora, tmp_path, reporter, layer_sweep(LinearSettings(), 1), seeds=[0], evaluation=tests, memory=10**6)
    assert 0.5 * 10**6 < sum(budgets) <= 10**6


def test_results_found_under_other_coordinates_are_shown_under_those_of_this_sweep(
    corpora: Path, tmp_path: Path, reporter: Any
) -> None:
    sweep(corpora, tmp_path, reporter, product({"x": LinearSettings()}, {"block": [1]}), seeds=[0])
    variants = product({"x": LinearSettings(), "y": LinearSettings()}, {"block": [1], "train.lr": [0.5]})
    rows = sweep(corpora, tmp_path, reporter, variants, seeds=[0])
    assert [(row["head"], row["train.lr"]) for row in rows if row["set"] == "a"] == [("x", 0.5), ("y", 0.5)]
    again = sweep(corpora, tmp_path, reporter, product({"z": LinearSettings()}, {"block": [1]}), seeds=[0])
    assert {(*row, row["head"]) for row in again} == {(*again[0], "z")}


def feeds_and_heads(corpora: Path, head: HeadSettings, count: int = 3) -> tuple[Any, list[Head]]:
    clean = corpora / "train" / "clean"
    heads = []
    for seed in range(count):
        torch.manual_seed(seed)
        heads.append(build_head(head, blocks=24, width=32, embedding=16))
    feeds = TrainingData.open([clean], clean, SETTINGS).feeds(heads[0].reads, torch.device("cpu"), 10**9)
    return feeds, heads


@pytest.mark.parametrize(
    "head",
    [
        LtdSettings(heads=4, dropout=0, selection="fixed:14"),
        LtdSettings(heads=4, dropout=0, candidates=(13, 17), selection_lr=0.05),
        RineSettings(depth=1, project=8, dropout=0),
        LayerTransformerSettings(heads=4, dropout=0),
        UnivfdSettings(),
    ],
    ids=lambda head: head.type,
)
def test_seeds_together_learn_what_they_learn_alone(corpora: Path, reporter: Any, head: HeadSettings) -> None:
    """Without random draws: one fixed window, or one candidate window, and no dropout."""
    feeds, together = feeds_and_heads(corpora, head)
    _, alone = feeds_and_heads(corpora, head)
    found = fit_together(together, *feeds, SETTINGS, seeds=range(3))
    for seed in range(3):
        _, best = fit(alone[seed], *feeds, SETTINGS, seed=seed, progress=reporter)
        assert found[seed].epoch == best.epoch
        assert found[seed].train_loss == pytest.approx(best.train_loss, rel=1e-4)
        torch.testing.assert_close(
            logits_of(together[seed], feeds[1], 64), logits_of(alone[seed], feeds[1], 64), rtol=0, atol=2e-4
        )


def test_each_seed_draws_its_own_windows_and_dropout(corpora: Path) -> None:
    feeds, heads = feeds_and_heads(corpora, LtdSettings(heads=4))
    for head in heads[1:]:
        head.load_state_dict(heads[0].state_dict())
    features, labels = next(feeds[0].batches(0, torch.arange(32), 32))
    losses = Stack(heads, SETTINGS).step(torch.stack([features] * 3), torch.stack([labels] * 3), 0)
    assert len(set(losses.tolist())) == 3


def test_heads_trained_together_keep_their_best_epoch_and_their_schedules_follow_the_steps(
    corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    for epochs, accuracies in ((1, [0.9] * 3), (2, [0.9] * 3 + [0.5] * 3)):
        feeds, heads = feeds_and_heads(corpora, LtdSettings(heads=4))
        found, told = iter(accuracies), list[int]()
        monkeypatch.setattr("stages.train.sweep.together.validate", lambda *_, found=found: (0.5, next(found)))
        monkeypatch.setattr(heads[0], "advance", told.append)
        torch.manual_seed(0)
        fit_together(heads, *feeds, SETTINGS.model_copy(update={"epochs": epochs}), seeds=range(3))
        assert told == list(range(epochs * -(-len(feeds[0]) // 32)))
        left.append([head.state_dict() for head in heads])
    for one, other in zip(*left, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_loss_of_heads_trained_together_that_is_not_finite_names_the_epoch(corpora: Path) -> None:
    feeds, heads = feeds_and_heads(corpora, LinearSettings())
    with pytest.raises(SettingError, match=r"a loss is not finite in epoch 0 at train\.lr 1e\+38; lower it"):
        fit_together(heads, *feeds, SETTINGS.model_copy(update={"lr": 1e38}), seeds=range(3))


def test_window_logits_keep_their_learning_rate_together(corpora: Path) -> None:
    feeds, heads = feeds_and_heads(corpora, LtdSettings(heads=4, selection_lr=1e-12))
    before = [{name: weight.clone() for name, weight in head.state_dict().items()} for head in heads]
    fit_together(heads, *feeds, SETTINGS, seeds=range(3))
    for head, was in zip(heads, before, strict=True):
        moved = {name: float((weight - was[name]).abs().max()) for name, weight in head.state_dict().items()}
        assert moved.pop("selection.pi") < 1e-6
        assert min(moved.values()) > 1e-4


def test_one_after_another_takes_the_time_of_all_heads(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds, heads = feeds_and_heads(corpora, LinearSettings())
    monkeypatch.setattr("stages.train.sweep.together._seconds", lambda *_: 2.0)
    assert seconds_a_step(heads, feeds[0], SETTINGS) == (6.0, 2.0)


def test_measuring_leaves_heads_and_random_state_alone(corpora: Path) -> None:
    feeds, heads = feeds_and_heads(corpora, LtdSettings(heads=4))
    before, state = [head.classifier.weight.clone() for head in heads], torch.get_rng_state()
    apart, together = seconds_a_step(heads, feeds[0], SETTINGS)
    assert apart > 0
    assert together > 0
    assert all(torch.equal(head.classifier.weight, weight) for head, weight in zip(heads, before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_together_is_said_and_needs_one_learning_rate(corpora: Path, tmp_path: Path, reporter: Any) -> None:
    rows = sweep(corpora, tmp_path / "s", reporter, layer_sweep(LinearSettings(), 2), together="yes")
    assert {row["together"] for row in rows} == {True}
    assert reporter.done == 4
    with pytest.raises(SettingError, match="patience gives each seed its own learning rate"):
        sweep(corpora, tmp_path / "t", reporter, product({"univfd": UnivfdSettings()}, {}), together="yes")


def command(*arguments: str) -> Result:
    return CliRunner().invoke(ltdpipe, ["sweep", *arguments])


def test_the_command(corpora: Path, tmp_path: Path) -> None:
    by_hand = ["--features", str(corpora / "train"), "--test", str(corpora / "test" / "clean"), "--set", "epochs=1"]
    out = tmp_path / "s"
    done = command("heads", "--head", "ltd", "--vary", "window=[3, 4]", "--seeds", "0,1,0", *by_hand, "--out", str(out))
    assert done.exit_code == 0, done.exception
    assert len((out / "results.csv").read_text().splitlines()) == 1 + 2 * 2 * 3
    for wrong, message in (
        (["layer", "--head", "ltd"], "leave --head out"),
        (["window", "--head", "univfd"], "one ltd head"),
        (["window", "--head", "ltd", "--head", "univfd"], "one ltd head"),
        (["heads"], "what to compare"),
        (["window", "--vary", "window=[3]"], "use --vary with sweep heads"),
        (["heads", "--head", "ltd", "--vary", "window=3"], "expected a list of values"),
        (["heads", "--head", "ltd", "--vary", "windows=[3]"], "--vary windows: the head 'ltd' has no such setting"),
        (["window", "--set", "candidates=[3, 4]"], "hold no 3 blocks"),
        (["layer", "--seeds", "0,x"], "--seeds 0,x: expected whole numbers"),
        (["layer", "--seeds", "0,"], "--seeds 0,: expected whole numbers"),
    ):
        failed = command(*wrong, *by_hand)
        assert isinstance(failed.exception, SettingError)
        assert message in str(failed.exception)
