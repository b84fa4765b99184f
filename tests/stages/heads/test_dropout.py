import pytest
import torch

from stages.heads.head import Dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_each_element_is_dropped_with_probability_p_and_the_rest_scaled(p: float) -> None:
    torch.manual_seed(0)
    x = torch.full((500, 400), 2.0)
    found = Dropout(p)(x)
    kept = found != 0
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=0.004)
    assert found[kept].unique().tolist() == pytest.approx([2 / (1 - p)], rel=1e-4)
    for shift in range(1, 8):  # the four elements of one draw, and their neighbours, are independent
        both = (kept[:, shift:] & kept[:, :-shift]).double().mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=0.008)
    assert kept.double().mean(dim=0).std().item() == pytest.approx((p * (1 - p) / 500) ** 0.5, rel=0.2)


def test_the_gradient_goes_through_what_is_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 12, requires_grad=True)
    found = Dropout(0.3)(x)
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, found)
    assert {0.0} < set(x.grad.unique().tolist())


def test_nothing_is_dropped_in_evaluation_and_odd_shapes_are_torchs_own() -> None:
    x = torch.randn(6, 7)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    torch.manual_seed(0)
    found = Dropout(0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(found, torch.nn.Dropout(0.5)(x))
