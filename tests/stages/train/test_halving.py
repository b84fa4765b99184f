import pytest
import torch

from planted import in_transitions, labels_of, noise, write_view
from stages.heads.file import TrainedHead, build_head
from stages.heads.head import HeadInput
from stages.heads.model_card import model_card
from stages.heads.settings import LinearSettings, LtdSettings, TrainSettings
from stages.train.data import TrainingData
from stages.train.run import HeadToTrain, run
from stages.train.selection import choose_windows, doubts
from stages.train.training import Training
from storage.errors import LtdpipeError
from storage.headfile import load_head

SETTINGS = TrainSettings(lr=1e-3, epochs=4, batch=32, validation_share=0.25)
NINE_WINDOWS = (9, 21)


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(folder / "store"))
        return write_view(folder / "clean", *in_transitions(160, seed=0))


def choose(view, out, reporter, selection="halving", **more):
    head = LtdSettings(heads=4, selection=selection, candidates=more.pop("candidates", NINE_WINDOWS))
    asked = HeadToTrain(name="ltd", settings=head, seed=3, out=out)
    given = {"settings": SETTINGS, **more}
    return run(views=[view], validation_view=view, heads=[asked], reporter=reporter, **given)[0]


def epochs_in(told):
    """How many epochs of one window a choice has trained."""
    return sum(told["epochs"][len(window["held_out_losses"]) - 1] for window in told["windows"])


# How far apart a window's logits hold the classes after each of 8 epochs.
GUESSES, SHOWS, SHOWS_LATE = [0.0] * 8, [0.0, 1, 2, 3, 3, 3, 3, 3], [0.0] * 5 + [3.0] * 3


@pytest.mark.parametrize(
    ("margins", "compared", "to_the_end", "in_doubt"),
    [
        pytest.param([SHOWS, *[GUESSES] * 4], [8], 5, 0, id="five are trained to the end"),
        pytest.param([GUESSES] * 7, [2, 3, 4, 5, 6, 7, 8], 7, 0, id="nothing shows"),
        pytest.param([SHOWS, *[GUESSES] * 7], [2, 8], 5, 0, id="one shows"),
        pytest.param([*[SHOWS_LATE] * 7, GUESSES], [2, 3, 4, 5, 6, 8], 5, 2, id="seven show late, all alike"),
    ],
)
def test_nothing_is_dropped_before_something_shows(view, reporter, *, margins, compared, to_the_end, in_doubt):
    settings = SETTINGS.model_copy(update={"epochs": 8})
    feeds = TrainingData.open([view], view, settings).batches(HeadInput("cls", (0,)), torch.device("cpu"), 10**8)
    labels = feeds[1].labels
    noise = torch.randn(len(labels), generator=torch.Generator().manual_seed(0)) / 10

    def start(window):
        head = build_head(LinearSettings(block=0), blocks=24, width=32, embedding=16)
        training = Training(head, settings, seed=0)
        for margin in margins[window]:
            training.end_epoch(0.5, margin * (2 * labels - 1) + noise.roll(window), labels)
        return training

    asked, windows = LtdSettings(selection="halving"), range(len(margins))
    (chosen,), told = choose_windows(asked, windows, start, feeds, epochs=8, at_once=3, progress=reporter)
    last = {each["start"] for each in told["windows"] if len(each["held_out_losses"]) == len(compared)}
    doubted = told.get("dropped_in_doubt", [])
    assert told["epochs"] == compared
    assert (len(last), len(doubted)) == (to_the_end, in_doubt)
    assert margins[chosen][-1] == max(margins[window][-1] for window in windows)
    assert all(margins[window] == margins[chosen] for window in doubted)
    assert reporter.done == 8 * len(margins)
    said = list(doubts({"window_selection": told, "window_start": chosen}))
    assert any("were dropped, though not clearly worse" in line for line in said) is bool(doubted)


def test_the_chosen_head_is_the_one_that_its_window_fixed_gives(view, tmp_path, reporter):
    out, plain = tmp_path / "chosen.safetensors", tmp_path / "fixed.safetensors"
    summary = choose(view, out, reporter)
    assert reporter.done == 9 * 4 + 4
    start = summary.facts["window_start"]
    choose(view, plain, reporter, f"fixed:{start}")
    (weights, metadata), (expected, of_plain) = load_head(out), load_head(plain)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert metadata["settings"] == of_plain["settings"]
    assert metadata["best"] == of_plain["best"]
    assert out.with_suffix(".csv").read_bytes() == plain.with_suffix(".csv").read_bytes()
    assert TrainedHead.load(out).module.reads.blocks == tuple(range(start, start + 5))


def test_every_windows_losses_stand_in_the_head_file(view, tmp_path, reporter):
    summary = choose(view, tmp_path / "head.safetensors", reporter)
    facts = load_head(tmp_path / "head.safetensors")[1]["facts"]
    told = facts["window_selection"]
    assert facts == summary.facts
    assert [each["start"] for each in told["windows"]] == list(range(9, 18))
    assert told["epochs"][-1] == 4
    losses = {each["start"]: each["held_out_losses"] for each in told["windows"]}
    alive = {start: own for start, own in losses.items() if len(own) == len(told["epochs"])}
    best, second = sorted(alive, key=lambda start: alive[start][-1])[:2]
    assert (facts["window_start"], told["second"]) == (best, second)
    assert told["difference"] == pytest.approx(alive[second][-1] - alive[best][-1], abs=1e-6)
    assert f"| {best}..{best + 4} |" in model_card(tmp_path / "head.safetensors")


def test_two_windows_are_the_best_two_that_share_at_most_two_blocks(view, tmp_path, reporter):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    plain = tmp_path / "fixed.safetensors"
    choose(view, one, reporter)
    facts = choose(view, two, reporter, "halving:2").facts
    told = load_head(one)[1]["facts"]["window_selection"]
    assert facts["window_selection"] == told
    ranked = sorted(told["windows"], key=lambda each: (-len(each["held_out_losses"]), each["held_out_losses"][-1]))
    best, *others = [each["start"] for each in ranked]
    second = next(start for start in others if abs(start - best) >= 3)
    assert {facts["window_start"], facts["window_start_2"]} == {best, second}
    choose(view, plain, reporter, f"fixed:{facts['window_start']},{facts['window_start_2']}")
    assert TrainedHead.load(two).metadata["settings"] == TrainedHead.load(plain).metadata["settings"]
    assert load_head(two)[0].keys() == load_head(plain)[0].keys()
    assert all(torch.equal(weights, load_head(plain)[0][name]) for name, weights in load_head(two)[0].items())


def test_a_stopped_choice_goes_on_to_the_same_bytes(view, store, reporter, interrupt):
    whole, out = store / "whole.safetensors", store / "head.safetensors"
    choose(view, whole, reporter)
    told = load_head(whole)[1]["facts"]["window_selection"]
    calls = interrupt(12)
    with pytest.raises(KeyboardInterrupt):
        choose(view, out, reporter)
    choose(view, out, reporter)
    assert len(calls) == epochs_in(told) + 1  # the epoch that was stopped is trained twice, no other one
    assert out.read_bytes() == whole.read_bytes()
    assert not list(store.glob("training/*/*"))


def test_a_choice_that_the_images_do_not_decide_is_called_so(tmp_path, reporter):
    nothing = write_view(tmp_path / "noise", noise(160), labels_of(160))
    settings = SETTINGS.model_copy(update={"lr": 1e-9, "epochs": 1})
    summary = choose(nothing, tmp_path / "x.safetensors", reporter, candidates=(11, 16), settings=settings)
    told = summary.facts["window_selection"]
    warned = [line for line in reporter.warnings if "within one standard error" in line]
    assert told["difference"] <= told["standard_error"] < 0.2
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"candidates": (3, 5)}, r"window 5 is longer than the 3 blocks of candidates 3\.\.5"),
        (
            {"candidates": (11, 17), "selection": "halving:2"},
            r"two windows of 5 blocks that share at most 2; candidates",
        ),
        # one step an epoch: its loss is measured before the weights are ruined
        (
            {"settings": SETTINGS.model_copy(update={"lr": 1e30, "batch": 512})},
            "the held-out loss is not finite in epoch 0",
        ),
        ({"settings": SETTINGS.model_copy(update={"validation_share": 1e-9})}, "on the validation side"),
    ],
)
def test_what_cannot_be_chosen_ends_in_one_line(view, tmp_path, reporter, more, message):
    with pytest.raises(LtdpipeError, match=message):
        choose(view, tmp_path / "x.safetensors", reporter, **more)
    assert not list(tmp_path.glob("*.safetensors"))
