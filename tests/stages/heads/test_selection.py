import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.heads.ltd import GumbelSelection


def numbered(n_images: int, candidates: int) -> Tensor:
    """Features (N, candidates, 2) whose row l is filled with l."""
    return torch.arange(candidates).float()[None, :, None].expand(n_images, -1, 2).contiguous()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 5))
def test_a_drawn_window_is_adjacent_blocks_to_the_bit(n: int, more: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(64, n + more, 3)
    selection = GumbelSelection(n + more, n)
    drawn = selection.draw(features)
    windows = torch.stack([features[:, start : start + n] for start in range(more + 1)], dim=1)  # (N, C, n, D)
    assert bool((drawn[:, None] == windows).all(dim=(2, 3)).any(dim=1).all())
    assert len(selection.pi) == more + 1


def test_gumbel_draws_each_window_with_its_softmax_probability() -> None:
    torch.manual_seed(0)
    selection = GumbelSelection(9, 5)
    starts = selection.draw(numbered(20_000, 9))[:, 0, 0].long()
    found = starts.bincount(minlength=5) / 20_000
    torch.testing.assert_close(found, selection.pi.detach().softmax(0), rtol=0, atol=0.015)


def test_weights_are_one_hot_with_the_gradient_of_the_softmax() -> None:
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


def test_the_temperature_never_changes_the_draw() -> None:
    torch.manual_seed(0)
    selection = GumbelSelection(9, 5)
    draws = []
    for selection.temperature in (0.1, 1.0, 10.0):
        torch.manual_seed(1)
        draws.append(selection.weights(500))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])


def test_annealing_is_linear_and_then_stays() -> None:
    selection = GumbelSelection(9, 5, temperature=1.0, anneal=(0.1, 1000))
    temperatures = []
    for steps_done in (0, 250, 500, 1000, 5000):
        selection.advance(steps_done)
        temperatures.append(selection.temperature)
    assert temperatures == pytest.approx([1.0, 0.775, 0.55, 0.1, 0.1])


def test_pi_starts_as_standard_normal_and_is_all_that_is_stored() -> None:
    torch.manual_seed(0)
    selection = GumbelSelection(5004, 5)
    assert selection.pi.mean().item() == pytest.approx(0, abs=0.05)
    assert selection.pi.std().item() == pytest.approx(1, abs=0.05)
    assert list(selection.state_dict()) == ["pi"]
