import os
import shutil
import signal
import sys

import pytest
import torch

from planted import in_transitions, noise, write_view
from running import PROJECT, invoke, read_csv, run_command, start_held, wait_for
from stages.heads.machine import best_device, default_budget, default_threads, repeatable
from stages.heads.model_card import model_card
from stages.heads.settings import (
    LinearSettings,
    LtdSettings,
    Overrides,
    RineSettings,
    TrainSettings,
    UnivfdSettings,
)
from stages.train import run as train_run
from stages.train.run import HeadToTrain, run
from storage.headfile import load_head
from storage.index import INDEX_NAME, fingerprint, read_index

# The budget of a process that may take 1 GiB, as in a container.
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_RSS, (1 << 30, 1 << 30))
import torch
from stages.heads.machine import default_budget
print(default_budget(torch.device("cpu")))
"""
SETTINGS = TrainSettings(lr=1e-3, epochs=4, batch=32, validation_share=0.25)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """One corpus with the views clean, train-0, train-1 and val."""
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(folder / "store"))
        tokens, labels = in_transitions(160, seed=0)
        for number, view in enumerate(("clean", "train-0", "train-1", "val")):
            write_view(folder / view, tokens + 0.1 * noise(160, number), labels, view=view)
    return folder


def train(features, out, reporter, head=None, **more):
    given = {
        "views": [features / "train-0", features / "train-1"],
        "validation_view": features / "val",
        "settings": SETTINGS,
        **more,
    }
    settings, seed = head or LtdSettings(heads=4, selection_lr=0.01), given.pop("seed", 3)
    asked = HeadToTrain(name="ltd", settings=settings, seed=seed, out=out)
    return run(heads=[asked], reporter=reporter, **given)[0]


def test_the_same_seed_gives_the_same_bytes_and_features_from_disk_an_order_of_their_own(features, tmp_path, reporter):
    budgets = {"a": None, "b": None, "one-view": 120 * 9 * 32 * 2 + 50_000, "streamed": 0, "small": 40_000}
    files = {}
    for name, memory in budgets.items():
        out = tmp_path / f"{name}.safetensors"
        train(features, out, reporter, memory=memory)
        files[name] = out.read_bytes(), out.with_suffix(".csv").read_bytes()
    assert files["a"] == files["b"] == files["one-view"] != files["streamed"] == files["small"]
    orders = {name: load_head(tmp_path / f"{name}.safetensors")[1].get("image_order") for name in ("a", "streamed")}
    assert orders == {"a": None, "streamed": "runs of 128 neighbours, mixed within windows of 4096"}
    assert "| Order of images | runs of 128" in model_card(tmp_path / "streamed.safetensors")
    train(features, tmp_path / "other.safetensors", reporter, seed=4)
    assert (tmp_path / "other.safetensors").read_bytes() != files["a"][0]


def kinds_of_heads():
    halving = LtdSettings(heads=4, selection="halving", candidates=(9, 15))
    return {
        "halving": halving,
        "gumbel": LtdSettings(heads=4, selection_lr=0.01, anneal=(0.1, 12)),
        "univfd": UnivfdSettings(train=Overrides(epochs=6, patience=1, lr=1e-5)),
        "rine": RineSettings(depth=2, project=16),
        "short": LinearSettings(block=3, train=Overrides(epochs=1)),
    }


def in_one_pass(features, folder, reporter, heads, **more):
    asked = [
        HeadToTrain(name=name, settings=settings, seed=seed, out=folder / name / f"{seed}.safetensors")
        for name, settings in heads.items()
        for seed in (3, 4)
    ]
    views = [features / "train-0", features / "train-1"]
    given = {"views": views, "validation_view": features / "val", "settings": SETTINGS, **more}
    return run(heads=asked, reporter=reporter, **given)


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


@pytest.mark.parametrize("memory", [None, 0], ids=["resident", "streamed"])
def test_heads_trained_in_one_pass_are_the_heads_trained_alone(features, tmp_path, reporter, memory):
    heads = kinds_of_heads()
    in_one_pass(features, tmp_path / "together", reporter, heads, memory=memory)
    for name, settings in heads.items():
        in_one_pass(features, tmp_path / "alone", reporter, {name: settings}, memory=memory)
    assert files_in(tmp_path / "together") == files_in(tmp_path / "alone")


def test_what_is_finished_is_not_trained_again_and_what_decides_it_makes_it_anew(
    features, tmp_path, reporter, monkeypatch
):
    store, heads = tmp_path / "finished", {"a": LinearSettings(), "b": LinearSettings(block=3)}

    def kept(asked=heads, **more):
        summaries = in_one_pass(features, tmp_path / "out", reporter, asked, finished=store, **more)
        return [each.kept for each in summaries]

    assert kept(curves=tmp_path / "curves.csv") == [False] * 4
    made = files_in(tmp_path / "out")
    rows = read_csv(tmp_path / "curves.csv")
    assert [(row["group"], row["epoch"]) for row in rows[:5]] == [
        *(("a, seed 3", str(n)) for n in range(4)),
        ("a, seed 4", "0"),
    ]
    shutil.rmtree(tmp_path / "out")
    assert kept() == [True] * 4
    assert files_in(tmp_path / "out") == made
    assert kept({**heads, "c": LinearSettings(block=5)}) == [True] * 4 + [False] * 2
    assert kept({"a": LinearSettings(block=3)}) == [False] * 2
    assert kept(settings=SETTINGS.model_copy(update={"lr": 0.1})) == [False] * 4
    assert kept(views=[features / "train-1"]) == [False] * 4
    assert kept(threads=2) == [False] * 4
    damaged = max(store.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert kept(threads=2).count(False) == 1
    monkeypatch.setattr(train_run, "CODE", train_run.CODE[1:])  # other code
    assert kept() == [False] * 4


def test_metadata_curves_and_card_tell_where_the_head_comes_from(features, tmp_path, reporter):
    summary = train(features, tmp_path / "head.safetensors", reporter, threads=1)
    _, metadata = load_head(tmp_path / "head.safetensors")
    device = best_device().type
    assert metadata["machine"] == {"device": device, "threads": 1 if device == "cpu" else None}
    assert (metadata["head"], metadata["seed"], metadata["corpus"]) == ("ltd", 3, "planted")
    indexes = {name: fingerprint(read_index(features / name / INDEX_NAME)) for name in ("train-0", "train-1", "val")}
    assert metadata["view_index_sha256"] == indexes
    assert metadata["corpus_index_sha256"] == indexes["train-0"]
    assert metadata["images"]["training"] + metadata["images"]["validation"] == 160
    assert metadata["facts"] == summary.facts
    assert sorted(metadata["facts"]) == ["pi", "pi_before", "window_moved", "window_start"]
    assert "0.25 of the training images" in metadata["validation"]
    rows = read_csv(tmp_path / "head.csv")
    assert [int(row["epoch"]) for row in rows] == list(range(metadata["train"]["epochs"])) == list(range(4))
    assert float(rows[metadata["best"]["epoch"]]["validation_accuracy"]) == metadata["best"]["validation_accuracy"]
    card = model_card(tmp_path / "head.safetensors")
    for row in (
        f"| Parameters | {summary.parameters:,} |",
        f"| Validation accuracy | {summary.best.validation_accuracy:.4f} at logit 0 |",
        f"| Key | {metadata['feature_key']} |",
        f"| window_start | {summary.facts['window_start']} |",
    ):
        assert row in card, row


@pytest.mark.parametrize(
    ("stopped_in", "head"),
    [(1, UnivfdSettings()), (2, LtdSettings(heads=4, selection_lr=0.01, anneal=(0.1, 12)))],
    ids=["univfd", "ltd"],
)
def test_a_stopped_training_goes_on_to_the_same_bytes(features, store, reporter, interrupt, *, stopped_in, head):
    out, whole = store / "head.safetensors", store / "whole.safetensors"
    head = head.model_copy(update={"train": Overrides(epochs=4, lr=1e-3, batch=32, patience=1)})
    train(features, whole, reporter, head)
    assert not list(store.glob("training/*/*"))

    calls = interrupt(stopped_in)
    with pytest.raises(KeyboardInterrupt):
        train(features, out, reporter, head)
    assert not out.exists()
    assert len(list(store.glob("training/*/*.pt"))) == 1
    calls[:] = [1] * 100
    train(features, out, reporter, head)
    assert reporter.notes[-1].startswith(f"training resumes after epoch {stopped_in - 1}")
    assert len(calls) == 100 + 4 - stopped_in
    assert out.read_bytes() == whole.read_bytes()
    assert out.with_suffix(".csv").read_bytes() == whole.with_suffix(".csv").read_bytes()
    assert not list(store.glob("training/*/*"))


def test_training_of_another_seed_or_from_other_views_does_not_go_on_with_what_is_unfinished(
    features, store, reporter, monkeypatch
):
    monkeypatch.setattr(train_run, "remove", lambda *paths: None)
    others = [
        {"seed": 4},
        {"views": [features / "train-0"]},
        {"validation_view": features / "clean"},
        {"settings": SETTINGS.model_copy(update={"batch": 40})},
    ]
    for more in ({}, *others):
        train(features, store / "head.safetensors", reporter, **more)
    assert not any("training resumes" in note for note in reporter.notes)
    assert len(list(store.glob("training/*/*"))) == 1 + len(others)


def test_an_unreadable_unfinished_file_is_named_and_training_starts_over(features, store, reporter, monkeypatch):
    out, whole = store / "head.safetensors", store / "whole.safetensors"
    train(features, whole, reporter)
    monkeypatch.setattr(train_run, "remove", lambda *paths: None)
    train(features, out, reporter)
    (kept,) = store.glob("training/*/*.pt")
    kept.write_bytes(kept.read_bytes()[:-100])
    train(features, out, reporter)
    assert "training starts over" in reporter.notes[-1]
    assert out.read_bytes() == whole.read_bytes()


def test_a_signal_leaves_what_the_command_goes_on_with(features, tmp_path, store, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what is unfinished belongs to the folder that the command ran in
    out = tmp_path / "head.safetensors"
    arguments = ["train", "--features", str(features / "clean"), "--head", "ltd"]
    arguments += [f"--set={setting}" for setting in ("heads=4", "lr=1e-3", "epochs=4", "batch=40")]
    place, options = "stages.train.training:Training:_save", [*arguments, "--out", str(out)]
    with start_held(place, 2, *options, cwd=tmp_path, LTDPIPE_STORE=str(store)) as process:
        wait_for(process, store, "training/*/*.pt")
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, told
    assert "to resume, run" in told
    assert not out.exists()
    assert "training resumes after epoch" in invoke(*arguments, "--out", str(out)).stderr
    whole = tmp_path / "whole.safetensors"
    assert "resumes" not in invoke(*arguments, "--out", str(whole)).stderr
    assert out.read_bytes() == whole.read_bytes()


def test_settings_by_hand(features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_hand = ("train", "--features", str(features))
    sets = [f"--set={setting}" for setting in ("depth=1", "project=8", "lr=1e-4", "views=[train:2]")]
    assert invoke(*by_hand, "--head", "rine", *sets).exit_code == 0
    _, metadata = load_head(tmp_path / "heads" / "rine" / "0.safetensors")
    assert (metadata["settings"]["depth"], metadata["train"]["lr"]) == (1, 1e-4)
    assert sorted(metadata["view_index_sha256"]) == ["clean", "train-0", "train-1"]
    done = invoke(*by_hand, "--head", "linear:3", "--seed", "5", "--set", "epochs=1", "--memory", "1MB")
    assert "best epoch 0" in done.output
    assert load_head(tmp_path / "heads" / "linear-3" / "5.safetensors")[1]["settings"]["block"] == 3
    for wrong, message in (
        (["--head", "ltd", "--set", "windows=4"], "no setting of training or of this head; allowed: anneal, batch"),
        (["--head", "ltd", "--set", "window"], "expected KEY=VALUE"),
        (["--head", "ltd", "--set", "window=x"], "--set window: input should be a valid integer"),
        (["--head", "ltd", "--set", "lr=x"], "--set train.lr: input should be a valid number"),
        (["--head", "linear:["], "the block '[' of --head linear:[ is no valid YAML"),
        (["--head", "lstm"], "--head: unknown type 'lstm'"),
        (["--head", "ltd", "--set", "views=[jpeg:70]"], "jpeg-70"),
    ):
        assert message in str(invoke(*by_hand, *wrong).exception)
    assert "is no size" in invoke(*by_hand, "--head", "ltd", "--memory", "much").stderr
    assert "--set and --out need --features" in str(invoke("train", "--head", "ltd", "--set", "lr=1").exception)


def test_threads_and_memory_are_those_of_the_machine():
    with repeatable(3):
        assert (default_threads(511), default_threads(512)) == (1, 3)
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # 60 % of what is free, in bytes: less than of all, more than if it were counted in kilobytes
    assert 0.6 * installed / 1024 < default_budget(torch.device("cpu")) < 0.59 * installed
    limited = run_command(sys.executable, "-c", LIMITED, cwd=PROJECT)
    assert 0 < int(limited.stdout) < 0.6 * 2**30  # what the process itself takes is gone
