import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.heads.ltd import GumbelSelection


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 5))
def test_a_drawn_window_is_adjacent_blocks_to_the_bit(n, more):
    torch.manual_seed(0)
    features = torch.randn(64, n + more, 3)
    selection = GumbelSelection(n + more, n)
    drawn = selection.draw(features)
    windows = torch.stack([features[:, start : start + n] for start in range(more + 1)], dim=1)  # (N, C, n, D)
    assert bool((drawn[:, None] == windows).all(dim=(2, 3)).any(dim=1).all())
    assert len(selection.pi) == more + 1


def test_weights_are_one_hot_with_the_gradient_of_the_softmax():
    torch.manual_seed(0)
    selection = GumbelSelection(9, 5, temperature=0.7)
    worth = torch.randn(20_000, 5)  # so many that a sum rounded to almost one would be met
    torch.manual_seed(1)
    weights = selection.weights(20_000)
    assert set(weights.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(weights.sum(1), torch.ones(20_000))
    (found,) = torch.autograd.grad((weights * worth).sum(), selection.pi)

    torch.manual_seed(1)
    gumbel = -torch.empty(20_000, 5).exponential_().log()
    soft = ((selection.pi + gumbel) / 0.7).softmax(1)
    (expected,) = torch.autograd.grad((soft * worth).sum(), selection.pi)
    torch.testing.assert_close(found, expected)
    assert torch.equal(weights.argmax(1), (selection.pi + gumbel).argmax(1))


def test_annealing_is_linear_and_then_stays():
    selection = GumbelSelection(9, 5, temperature=1.0, anneal=(0.1, 1000))
    temperatures = []
    for steps_done in (0, 250, 500, 1000, 5000):
        selection.advance(steps_done)
        temperatures.append(selection.temperature)
    assert temperatures == pytest.approx([1.0, 0.775, 0.55, 0.1, 0.1])


def test_pi_starts_as_standard_normal_and_is_all_that_is_stored():
    torch.manual_seed(0)
    selection = GumbelSelection(5004, 5)
    assert selection.pi.mean().item() == pytest.approx(0, abs=0.05)
    assert selection.pi.std().item() == pytest.approx(1, abs=0.05)
    assert list(selection.state_dict()) == ["pi"]
