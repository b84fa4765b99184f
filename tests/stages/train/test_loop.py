import numpy as np
import pytest
import torch

from planted import labels_of, noise, write_view
from stages.heads.file import build_head
from stages.heads.head import Head
from stages.heads.settings import LtdSettings, TrainSettings
from stages.train.data import TrainingData
from stages.train.loop import train_together
from stages.train.training import Epoch, Training, best_of, lr_factor
from storage.errors import SettingError


def history(*accuracies):
    return [Epoch(number, 1e-3, 0.5, 0.5, accuracy) for number, accuracy in enumerate(accuracies)]


def test_a_later_epoch_has_to_be_better_by_a_thousandth():
    assert best_of(history(0.9, 0.9009, 0.9)).epoch == 0
    assert best_of(history(0.9, 0.9011, 0.901)).epoch == 1
    assert best_of(history(0.5, 0.9, 0.7, 0.9011)).epoch == 3


def test_patience_divides_the_learning_rate_and_ends_training():
    settings = TrainSettings(lr=1e-4, patience=2)
    assert lr_factor(history(0.9, 0.9), settings) == 1
    assert lr_factor(history(0.9, 0.9, 0.9), settings) == pytest.approx(0.1)
    assert lr_factor(history(0.9, 0.9, 0.95, 0.9), settings) == 1
    assert lr_factor(history(*[0.9] * 5), settings) == pytest.approx(0.01)  # 1e-6 is the last one
    assert lr_factor(history(*[0.9] * 7), settings) is None
    assert lr_factor(history(*[0.9] * 99), TrainSettings(lr=1e-4)) == 1


@pytest.fixture
def data(tmp_path):
    for view in ("train-0", "train-1", "val"):
        offset = {"train-0": 0, "train-1": 100, "val": 200}[view]  # a view is known by its values
        write_view(tmp_path / view, noise(120) * 0.01 + offset, labels_of(120), view=view)
    views = [tmp_path / "train-0", tmp_path / "train-1"]
    return TrainingData.open(views, tmp_path / "val", TrainSettings(validation_share=0.3))


def feeds(data, head):
    return data.batches(head.reads, torch.device("cpu"), 10**9)


def fit(data, head, reporter=None, *, seed=0, **settings):
    training = Training(head, TrainSettings(**{"batch": 60, "lr": 1e-3, **settings}), seed, name="x")
    (done,) = train_together([training], *feeds(data, head), progress=reporter)
    return done


class Spy(Head):
    """A linear head that keeps the mean of what it is given."""

    def __init__(self):
        like = build_head(LtdSettings(), blocks=24, width=32, embedding=16)
        super().__init__(like.reads, like.feature_shape)
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[bool, int]] = []
        self.steps: list[int] = []
        self.labels: list[float] = []

    def forward(self, features):
        self.seen.append((self.training, round(features.mean().item() / 100)))
        return self.layer(features.mean(dim=(1, 2))[:, None]).squeeze(1)

    def loss(self, features, labels):
        self.labels += labels.tolist()
        return super().loss(features, labels)

    def advance(self, steps_done):
        self.steps.append(steps_done)


def test_epoch_e_reads_view_e_mod_v_and_validation_its_own(data, reporter):
    spy = Spy()
    training = fit(data, spy, reporter, epochs=5, lr=1e-6)
    assert spy.seen == [(True, 0), (True, 0), (False, 2), (True, 1), (True, 1), (False, 2)] * 2 + spy.seen[:3]
    assert spy.steps == list(range(10))
    assert [epoch.epoch for epoch in training.history] == list(range(5))
    assert reporter.done == 5


@pytest.mark.parametrize("wrong", [0, 3])
def test_validation_counts_what_is_on_the_right_side_of_logit_0(data, wrong):
    """A logit of exactly 0 does not say synthetic."""

    class Knows(Spy):
        def forward(self, features):
            if self.training:
                return super().forward(features)
            labels = feeds(data, self)[1].labels
            logits = 2.0 * (2 * labels - 1)
            return torch.cat([-logits[:wrong], logits[wrong:]]) if wrong else torch.zeros(len(labels))

    labels = feeds(data, Spy())[1].labels.double()
    epoch = fit(data, Knows(), epochs=1, batch=1000).best
    if wrong:
        right, other = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
        assert epoch.validation_accuracy == pytest.approx(1 - wrong / len(labels))
        assert epoch.validation_loss == pytest.approx((right * (len(labels) - wrong) + other * wrong) / len(labels))
    else:
        assert epoch.validation_accuracy == pytest.approx(1 - labels.mean().item()) != pytest.approx(0.5)


@pytest.mark.parametrize("steps", [5, 6])
def test_a_loss_that_is_not_finite_names_head_and_epoch_and_the_other_heads_are_trained(data, steps):
    """At the first and at the last one of the two steps of an epoch."""

    class Breaks(Spy):
        def loss(self, features, labels):
            return super().loss(features, labels) * (float("inf") if len(self.steps) >= steps else 1)

    settings = TrainSettings(epochs=5, batch=60, lr=1e-3)
    both = [Training(head, settings, 0, name=name) for name, head in (("x", Breaks()), ("y", Spy()))]
    done = []
    with pytest.raises(SettingError, match=r"head 'x', seed 0: the loss is not finite in epoch 2 at train\.lr 0\.001"):
        done += train_together(both, *feeds(data, both[0].head))
    assert len(both[1].history) == 5


@pytest.mark.parametrize("accuracies", [(0.9, 0.5, 0.7), (0.5, 0.9, 0.7), (0.5, 0.6, 0.7)])
def test_the_weights_of_the_best_epoch_are_left_also_after_a_stop(data, reporter, tmp_path, monkeypatch, accuracies):
    kept = tmp_path / "unfinished.pt"

    def fitted(found, until=None):
        torch.manual_seed(0)
        head = build_head(LtdSettings(heads=4, selection_lr=0.05), blocks=24, width=32, embedding=16)
        monkeypatch.setattr("stages.train.training.measured", lambda *_: (0.5, next(accuracy)))
        settings = TrainSettings(epochs=len(accuracies), batch=60, lr=1e-3)
        training = Training(head, settings, 0, kept=kept, notify=reporter.note)
        accuracy = iter(found[len(training.history) :])
        list(train_together([training], *feeds(data, head), until=until))
        return head

    weights = []
    for epoch in range(len(accuracies)):  # each rises, so that its last epoch is the best one
        kept.unlink(missing_ok=True)
        weights.append(fitted([0.1 * (number + 1) for number in range(epoch + 1)], until=epoch + 1).state_dict())
    kept.unlink()
    fitted(accuracies, until=2)
    left = fitted(accuracies).state_dict()
    assert reporter.notes[-1].startswith("training resumes after epoch 1")
    for number, of_epoch in enumerate(weights):
        assert all(torch.equal(left[name], of_epoch[name]) for name in left) is (
            number == accuracies.index(max(accuracies))
        )


def test_each_epoch_has_an_order_of_its_own_and_its_loss_is_the_mean_over_images(data):
    head = Spy()
    training, _ = feeds(data, head)
    (((features,), labels),) = training.batches(0, torch.arange(len(training)), 1000, [head.reads])
    expected = head.loss(features, labels).item()
    head.labels.clear()
    done = fit(data, head, epochs=3, batch=len(training) - 5, lr=1e-30, seed=7)
    orders = [training.order(7, epoch) for epoch in range(3)]
    assert head.labels == labels[torch.cat(orders)].tolist()
    assert done.history[0].train_loss == pytest.approx(expected, rel=1e-5)
