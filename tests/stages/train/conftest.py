import pytest

from stages.train.training import Training


@pytest.fixture
def interrupt(monkeypatch):
    """Interrupt training once, after so many epochs of all heads; what it returns has an item for each that was run."""

    def after(epochs):
        end_epoch, calls = Training.end_epoch, list[int]()

        def stopping(training, *arguments):
            calls.append(1)
            if len(calls) == epochs + 1:
                raise KeyboardInterrupt
            end_epoch(training, *arguments)

        monkeypatch.setattr(Training, "end_epoch", stopping)
        return calls

    return after
