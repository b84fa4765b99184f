"""One head in training: its optimizer, random numbers and epochs, and how all of that outlives a stop."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from pickle import UnpicklingError
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import AdamW

from stages.heads.file import build_head
from storage.atomic import atomic_path
from storage.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from stages.heads.head import Head, HeadInput
    from stages.heads.settings import HeadSettings, TrainSettings
    from storage.spec import FeatureSpec

# A later epoch replaces the best one only when its accuracy is higher by this much.
MIN_GAIN = 0.001
_MIN_LR = 1e-6
_COPIES = 5  # of the weights: gradients, two moments and the best epoch's beside them


@dataclass(frozen=True)
class Epoch:
    """Measurements of one epoch, 0-based.

    Attributes:
        epoch: its number.
        lr: base learning rate, of all parameters to which the head gives no rate of their own.
        train_loss: mean over the epoch's batches, weighted by their size.
        validation_loss: binary cross-entropy, mean per image.
        validation_accuracy: share of images on the right side of logit 0.
    """

    epoch: int
    lr: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


class Training:
    """One head in training.

    Args:
        head: on the device of the batches, initialised just now from ``seed``: what training draws (dropout, windows)
            goes on where torch's global generator stands.
        settings: those of this head.
        seed: of the image order, which is drawn from it and the epoch alone.
        name: of the head, for messages.
        kept: a file that keeps the training after each epoch, to resume it with the same result as without a stop; the
            caller removes it.
        notify: gets a line on an unusable file and, with ``announce``, one on resuming.
        announce: whether resuming is worth a line.

    Attributes:
        before: what the head says of itself before its first step.
        history: the epochs so far.
        logits: of the images that validate, (N,) after each epoch, on the CPU.
    """

    def __init__(
        self,
        head: Head,
        settings: TrainSettings,
        seed: int,
        *,
        name: str = "",
        kept: Path | None = None,
        notify: Callable[[str], None] = lambda _: None,
        announce: bool = True,
    ) -> None:
        self.head, self.settings, self.seed, self.name = head, settings, seed, name
        self.before = head.describe()
        self.history: list[Epoch] = []
        self.logits: list[Tensor] = []
        self.kept = kept
        self._optimizer = AdamW(head.parameter_groups(settings.lr), weight_decay=0, fused=True)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._random = random_state()
        self._best: dict[str, Tensor] = {}
        if kept is not None and self._resume(kept, notify) and announce:
            notify(f"training resumes after epoch {self.history[-1].epoch}, kept in {kept}")

    @property
    def best(self) -> Epoch:
        """The epoch that is kept so far."""
        return best_of(self.history)

    def next_factor(self, until: int | None = None) -> float | None:
        """Return what the learning rates are multiplied by in the next epoch; None where training is at its end.

        Args:
            until: the end is after so many epochs already.
        """
        at_end = len(self.history) >= (until or self.settings.epochs)
        return None if at_end else lr_factor(self.history, self.settings)

    def step(self, number: int, features: Tensor, labels: Tensor) -> Tensor:
        """Take step ``number`` of the training, counted from its first epoch, and return its loss, a scalar."""
        set_random_state(self._random)
        self.head.advance(number)
        loss = self.head.loss(features, labels)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._random = random_state()
        return loss.detach()

    def begin_epoch(self) -> None:
        """Make the head and its learning rates ready for steps."""
        factor = self.next_factor()
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * (factor or 0)
        self.head.train()

    def end_epoch(self, train_loss: float, logits: Tensor, labels: Tensor) -> None:
        """Write down an epoch, with logits and labels (N,) of the images that validate, and keep the training.

        Raises:
            SettingError: a loss is not finite.
        """
        number, rate = len(self.history), self.settings.lr * (self.next_factor() or 0)
        validation_loss, accuracy = measured(logits, labels)
        for what, loss in (("loss", train_loss), ("held-out loss", validation_loss)):
            if not math.isfinite(loss):
                of = f"head {self.name!r}, seed {self.seed}: " if self.name else ""
                raise SettingError(
                    f"{of}the {what} is not finite in epoch {number} at train.lr {self.settings.lr}; lower it"
                )
        self.history.append(Epoch(number, rate, train_loss, validation_loss, accuracy))
        self.logits.append(logits.to("cpu", copy=True))
        if self.best.epoch == number:
            self._best = {name: weight.to("cpu", copy=True) for name, weight in self.head.state_dict().items()}
        if self.kept is not None:
            self._save(self.kept)

    def leave_best(self) -> None:
        """Give the head the weights of its best epoch: the end of training."""
        self.head.load_state_dict(self._best)

    def _save(self, path: Path) -> None:
        """Replace the file atomically by all that the next epoch depends on, and the epochs so far."""
        state = {
            "head": self.head.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "random": self._random,
            "logits": self.logits,
            "history": [asdict(epoch) for epoch in self.history],
        }
        content = io.BytesIO()  # of a full disk, torch would say nothing that can be understood
        torch.save(state, content)
        with atomic_path(path) as partial:
            partial.write_bytes(content.getbuffer())

    def _resume(self, path: Path, notify: Callable[[str], None]) -> bool:
        """Go back to what was saved last, executing nothing; return whether there was a usable file."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return False
        except (OSError, EOFError, RuntimeError, UnpicklingError):
            notify(f"training starts over: {path} cannot be read")
            return False
        self.head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best, self._random, self.logits = state["best"], state["random"], state["logits"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        return True


def losses_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy of each image, (N,), of logits (N,) and labels (N,)."""
    return binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none")


def measured(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return mean loss and accuracy of logits (N,); above 0 says synthetic."""
    return float(losses_of(logits, labels).mean()), float(((logits > 0) == (labels > 0.5)).double().mean())


def planned(settings: HeadSettings, spec: FeatureSpec) -> tuple[HeadInput, int]:
    """Return what a head reads, and how many bytes it takes in training; nothing is allocated.

    Raises:
        SettingError: the settings do not fit the backbone.
    """
    with torch.device("meta"):
        head = build_head(settings, blocks=spec.blocks, width=spec.width, embedding=spec.embedding)
    return head.reads, _COPIES * sum(4 * parameter.numel() for parameter in head.parameters())


def best_of(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch that is kept: the last one that beat all before it by ``MIN_GAIN``."""
    best = history[0]
    for epoch in history[1:]:
        if epoch.validation_accuracy >= best.validation_accuracy + MIN_GAIN:
            best = epoch
    return best


def lr_factor(history: Sequence[Epoch], settings: TrainSettings) -> float | None:
    """Return what the learning rates are multiplied by in the next epoch; None: patience is at its end."""
    factor, best, waited = 1.0, -1.0, 0
    for epoch in history:
        if epoch.validation_accuracy >= best + MIN_GAIN:
            best, waited = epoch.validation_accuracy, 0
            continue
        waited += 1
        if waited == settings.patience:
            factor, waited = factor / 10, 0
    # a hair below, so that 1e-4 divided by 10 twice still counts as 1e-6
    return factor if factor == 1 or settings.lr * factor >= _MIN_LR * 0.999 else None


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's global generators."""
    on_gpu = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **on_gpu}


def set_random_state(state: dict[str, Tensor]) -> None:
    """Put torch's global generators where they were."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
