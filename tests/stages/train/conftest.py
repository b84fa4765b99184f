from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.train.training import Training


@pytest.fixture(autouse=True)
def store(own_store: Path) -> Path:
    """A store of the test's own: unfinished training is kept there."""
    return own_store


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Interrupt training once, after so many epochs of all heads; what it returns has an item for each that was run."""

    def after(epochs: int) -> list[int]:
        end_epoch, calls = Training.end_epoch, list[int]()

        def stopping(training: Training, *arguments: Any) -> None:
            calls.append(1)
            if len(calls) == epochs + 1:
                raise KeyboardInterrupt
            end_epoch(training, *arguments)

        monkeypatch.setattr(Training, "end_epoch", stopping)
        return calls

    return after
