import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from planted import in_raw_tokens, in_transitions, write_view
from stages.heads.file import TrainedHead, score
from stages.heads.settings import LinearSettings, LtdSettings, TrainSettings, UnivfdSettings
from stages.train.run import HeadToTrain, run
from storage.features import FeatureTable

TRAIN = TrainSettings(lr=3e-3, epochs=20, batch=64)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Signal in the transitions and in the raw tokens, 1,200 images to train on and 400 others to test on."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTDPIPE_STORE", str(folder / "store"))
        for name, make in (("transitions", in_transitions), ("raw", in_raw_tokens)):
            write_view(folder / name / "train", *make(1200, seed=0))
            write_view(folder / name / "test", *make(400, seed=5), seed=5)
    return folder


def trained(corpora, corpus, head, reporter, seed=0):
    """Average precision on images not trained on, and the summary of training."""
    directory, out = corpora / corpus / "train", corpora / "head.safetensors"
    (summary,) = run(
        views=[directory],
        validation_view=directory,
        heads=[HeadToTrain(name="head", settings=head, seed=seed, out=out)],
        settings=TRAIN,
        reporter=reporter,
    )
    test = FeatureTable.open(corpora / corpus / "test")
    (logits,) = score([TrainedHead.load(out).module], test, np.arange(len(test)))
    return float(average_precision_score(test.index["label"].to_numpy(), logits)), summary


def ltd(**values):
    return LtdSettings(heads=4, dropout=0.1, **values)


def test_halving_finds_the_window_of_the_transitions(corpora, reporter):
    ap, summary = trained(corpora, "transitions", ltd(selection="halving"), reporter, 2)
    assert summary.facts["window_start"] == 14
    assert ap > 0.95
    assert not reporter.warnings


def test_pi_with_a_learning_rate_of_its_own_moves_to_the_window(corpora, reporter):
    ap, summary = trained(corpora, "transitions", ltd(selection_lr=0.05), reporter, 1)
    assert summary.facts["window_start"] == 14
    assert ap > 0.95
    assert summary.facts["window_moved"] is (int(np.argmax(summary.facts["pi_before"])) + 11 != 14)
    assert bool(reporter.warnings) is not summary.facts["window_moved"]


def test_pi_hardly_moves_at_the_published_learning_rate_and_that_is_said(corpora, reporter):
    """METHOD: the window is in effect the initial draw, here 11..15, which does not hold the signal."""
    head = LtdSettings(heads=4, dropout=0.1, selection_lr=5e-5)
    ap, summary = trained(corpora, "transitions", head, reporter)
    assert (summary.facts["window_start"], summary.facts["window_moved"]) == (11, False)
    assert np.abs(np.subtract(summary.facts["pi"], summary.facts["pi_before"])).max() < 0.08
    assert "left the random initial window unchanged" in reporter.warnings[0]
    assert ap < 0.7


@pytest.mark.parametrize("head", [ltd(selection="fixed:13"), UnivfdSettings(), LinearSettings(block="all")])
def test_other_windows_and_heads_that_read_no_transitions_miss_them(corpora, reporter, head):
    ap, _ = trained(corpora, "transitions", head, reporter)
    assert ap < 0.65


def test_a_signal_in_the_raw_tokens_is_found_by_the_raw_branch_alone(corpora, reporter):
    found, _ = trained(corpora, "raw", ltd(branches=["raw"], selection="fixed:14"), reporter)
    missed, _ = trained(corpora, "raw", ltd(branches=["delta"], selection="fixed:14"), reporter)
    assert found > 0.95
    assert missed < 0.65
