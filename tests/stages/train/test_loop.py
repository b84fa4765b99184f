from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from planted import labels_of, noise, write_view
from stages.heads.file import build_head
from stages.heads.head import Head
from stages.heads.settings import LtdSettings, TrainSettings
from stages.train import loop
from stages.train.checkpoint import Checkpoint
from stages.train.data import TrainingData
from stages.train.loop import Epoch, best_of, fit, image_order, lr_factor
from storage.errors import SettingError


def history(*accuracies: float) -> list[Epoch]:
    return [Epoch(number, 1e-3, 0.5, 0.5, accuracy) for number, accuracy in enumerate(accuracies)]


def test_a_later_epoch_has_to_be_better_by_a_thousandth() -> None:
    assert best_of(history(0.9, 0.9009, 0.9)).epoch == 0
    assert best_of(history(0.9, 0.9011, 0.901)).epoch == 1
    assert best_of(history(0.5, 0.9, 0.7, 0.9011)).epoch == 3


def test_patience_divides_the_learning_rate_and_ends_training() -> None:
    settings = TrainSettings(lr=1e-4, patience=2)
    assert lr_factor(history(0.9, 0.9), settings) == 1
    assert lr_factor(history(0.9, 0.9, 0.9), settings) == pytest.approx(0.1)
    assert lr_factor(history(0.9, 0.9, 0.95, 0.9), settings) == 1
    assert lr_factor(history(*[0.9] * 5), settings) == pytest.approx(0.01)  # 1e-6 is the last one
    assert lr_factor(history(*[0.9] * 7), settings) is None
    assert lr_factor(history(*[0.9] * 99), TrainSettings(lr=1e-4)) == 1


def test_the_order_of_images_belongs_to_seed_and_epoch() -> None:
    order = image_order(1000, seed=1, epoch=2)
    assert sorted(order.tolist()) == list(range(1000))
    assert torch.equal(order, image_order(1000, seed=1, epoch=2))
    assert not torch.equal(order, image_order(1000, seed=1, epoch=3))
    assert not torch.equal(order, image_order(1000, seed=2, epoch=2))
    assert not torch.equal(order, image_order(1000, seed=2, epoch=1))
    assert not torch.equal(order, image_order(1000, seed=0, epoch=3))


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    for view in ("train-0", "train-1", "val"):
        offset = {"train-0": 0, "train-1": 100, "val": 200}[view]  # a view is known by its values
        write_view(tmp_path / view, noise(120) * 0.01 + offset, labels_of(120), view=view)
    views = [tmp_path / "train-0", tmp_path / "train-1"]
    return TrainingData.open(views, tmp_path / "val", TrainSettings(validation_share=0.3))


class Spy(Head):
    """A linear head that keeps the mean of what it is given."""

    def __init__(self, like: Head) -> None:
        super().__init__(like.reads, like.feature_shape)
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[bool, int]] = []
        self.steps: list[int] = []

    def forward(self, features: Tensor) -> Tensor:
        self.seen.append((self.training, round(features.mean().item() / 100)))
        return self.layer(features.mean(dim=(1, 2))[:, None]).squeeze(1)  # type: ignore[no-any-return]

    def advance(self, steps_done: int) -> None:
        self.steps.append(steps_done)


def test_epoch_e_reads_view_e_mod_v_and_validation_its_own(data: TrainingData, reporter: Any) -> None:
    spy = Spy(build_head(LtdSettings(), blocks=24, width=32, embedding=16))
    training, validation = data.batches(spy.reads, torch.device("cpu"), 10**9)
    settings = TrainSettings(epochs=5, batch=60, lr=1e-6)
    epochs, _ = fit(spy, training, validation, settings, seed=0, progress=reporter)
    assert spy.seen == [(True, 0), (True, 0), (False, 2), (True, 1), (True, 1), (False, 2)] * 2 + spy.seen[:3]
    assert spy.steps == list(range(10))
    assert [epoch.epoch for epoch in epochs] == list(range(5))
    assert reporter.done == 5


def test_validation_counts_what_is_on_the_right_side_of_logit_0(data: TrainingData) -> None:
    class Knows(Spy):
        def forward(self, features: Tensor) -> Tensor:
            logits = 2.0 * (2 * validation.labels - 1)
            return torch.cat([-logits[:3], logits[3:]])  # three are wrong

    head = Knows(build_head(LtdSettings(), blocks=24, width=32, embedding=16))
    _, validation = data.batches(head.reads, torch.device("cpu"), 10**9)
    images = len(validation)
    loss, accuracy = loop.validate(head, validation, 1000)
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    assert accuracy == pytest.approx((images - 3) / images)
    assert loss == pytest.approx((right * (images - 3) + wrong * 3) / images)


def test_a_logit_of_exactly_0_does_not_say_synthetic(data: TrainingData) -> None:
    class Undecided(Spy):
        def forward(self, features: Tensor) -> Tensor:
            return torch.zeros(len(features))

    head = Undecided(build_head(LtdSettings(), blocks=24, width=32, embedding=16))
    _, validation = data.batches(head.reads, torch.device("cpu"), 10**9)
    real = 1 - validation.labels.double().mean().item()
    assert real != pytest.approx(0.5)  # else both answers had this accuracy
    assert loop.validate(head, validation, 1000)[1] == pytest.approx(real)


@pytest.mark.parametrize("steps", [5, 6])
def test_a_loss_that_is_not_finite_names_the_epoch(data: TrainingData, reporter: Any, steps: int) -> None:
    """At the first and at the last one of the two steps of an epoch."""

    class Breaks(Spy):
        def loss(self, features: Tensor, labels: Tensor) -> Tensor:
            return super().loss(features, labels) * (float("inf") if len(self.steps) >= steps else 1)

    head = Breaks(build_head(LtdSettings(), blocks=24, width=32, embedding=16))
    feeds = data.batches(head.reads, torch.device("cpu"), 10**9)
    with pytest.raises(SettingError, match=r"not finite in epoch 2 at train\.lr 0\.001; lower it"):
        fit(head, *feeds, TrainSettings(epochs=5, batch=60, lr=1e-3), seed=0, progress=reporter)


class Stop(KeyboardInterrupt):
    pass


def fitted(
    data: TrainingData,
    reporter: Any,
    monkeypatch: pytest.MonkeyPatch,
    accuracies: Sequence[float],
    *,
    checkpoint: Checkpoint | None = None,
    epochs: int = 0,
    **settings: Any,
) -> Head:
    """A head after as many epochs as there are accuracies, which validation is made to find."""
    torch.manual_seed(0)
    head = build_head(LtdSettings(heads=4, selection_lr=0.05), blocks=24, width=32, embedding=16)
    feeds = data.batches(head.reads, torch.device("cpu"), 10**9)
    found = iter(accuracies)

    def validate(*_: Any) -> tuple[float, float]:
        accuracy = next(found, None)
        if accuracy is None:
            raise Stop
        return 0.5, accuracy

    monkeypatch.setattr(loop, "validate", validate)
    told = TrainSettings(epochs=epochs or len(accuracies), batch=60, lr=1e-3, **settings)
    fit(head, *feeds, told, seed=0, progress=reporter, checkpoint=checkpoint)
    return head


def same(one: Head, other: Head) -> bool:
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


@pytest.mark.parametrize(("accuracies", "best"), [((0.9, 0.5), 0), ((0.5, 0.9, 0.7), 1), ((0.5, 0.6, 0.7), 2)])
def test_the_weights_of_the_best_epoch_are_left(
    data: TrainingData, reporter: Any, monkeypatch: pytest.MonkeyPatch, accuracies: tuple[float, ...], best: int
) -> None:
    left = fitted(data, reporter, monkeypatch, accuracies)
    for epoch in range(len(accuracies)):
        rising = [0.1 * (number + 1) for number in range(epoch + 1)]  # so that the last epoch is the best one
        assert same(left, fitted(data, reporter, monkeypatch, rising)) is (epoch == best)


def test_the_best_weights_outlive_a_stop(
    data: TrainingData, reporter: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "unfinished.safetensors", reporter.note)
    with pytest.raises(Stop):
        fitted(data, reporter, monkeypatch, [0.9, 0.5], checkpoint=checkpoint, epochs=3)
    resumed = fitted(data, reporter, monkeypatch, [0.4], checkpoint=checkpoint, epochs=3)
    assert reporter.notes[-1].startswith("training resumes after epoch 1")
    assert reporter.done == 2 + 3  # those of the stopped run, and all of the one that went on
    assert same(resumed, fitted(data, reporter, monkeypatch, [0.9]))


def test_patience_lowers_the_learning_rates_of_all_groups(
    data: TrainingData, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, seen = AdamW.step, []

    def recording(optimizer: AdamW) -> None:
        seen.append(tuple(group["lr"] for group in optimizer.param_groups))
        step(optimizer)

    monkeypatch.setattr(AdamW, "step", recording)
    fitted(data, reporter, monkeypatch, [0.9, 0.9, 0.9], patience=1)
    assert [pytest.approx(rates) for rates in dict.fromkeys(seen)] == [(1e-3, 0.05), (1e-4, 0.005)]
    monkeypatch.setattr(loop, "validate", lambda *_: (0.5, 0.9))
    head = Spy(build_head(LtdSettings(), blocks=24, width=32, embedding=16))
    feeds = data.batches(head.reads, torch.device("cpu"), 10**9)
    epochs, _ = fit(head, *feeds, TrainSettings(epochs=3, lr=1e-3, patience=1), seed=0, progress=reporter)
    assert [epoch.lr for epoch in epochs] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_each_epoch_has_an_order_of_its_own_and_its_loss_is_the_mean_over_images(
    data: TrainingData, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, int]] = []

    def recording(images: int, **more: int) -> Tensor:
        drawn.append(more)
        return image_order(images, **more)

    monkeypatch.setattr(loop, "image_order", recording)
    head = Spy(build_head(LtdSettings(), blocks=24, width=32, embedding=16))
    training, validation = data.batches(head.reads, torch.device("cpu"), 10**9)
    ((features, labels),) = training.batches(0, torch.arange(len(training)), 1000)
    expected = head.loss(features, labels).item()
    settings = TrainSettings(epochs=3, batch=len(training) - 5, lr=1e-30)
    epochs, _ = fit(head, training, validation, settings, seed=7, progress=reporter)
    assert drawn == [{"seed": 7, "epoch": epoch} for epoch in range(3)]
    assert epochs[0].train_loss == pytest.approx(expected, rel=1e-5)
