import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from stages.train.heads import Head, build_head
from stages.train.heads.settings import LtdSettings
from stages.train.optimizer import Adam


def head(**values: object) -> Head:
    torch.manual_seed(0)
    return build_head(LtdSettings.model_validate({"heads": 4, **values}), blocks=24, width=32, embedding=16).train()


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(step)
    return torch.randn(16, 9, 32, generator=random), (torch.arange(16) % 2).float()


def steps(module: Head, optimizer: Adam, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        optimizer.minimise(module.loss(*batch(number)))


@pytest.mark.parametrize("large", [1, 2**20], ids=["each at once", "all at the end"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_the_same_updates_as_torchs_to_the_last_bit(
    kind: type[torch.optim.Optimizer], large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the published betas and no weight decay, for both groups, also when the learning rates change."""
    monkeypatch.setattr("stages.train.optimizer._LARGE", large)
    ours, theirs = head(selection_lr=0.05), head(selection_lr=0.05)
    optimizer = Adam(ours.parameter_groups(1e-3))
    reference = kind(theirs.parameter_groups(1e-3), betas=(0.9, 0.999), weight_decay=0, fused=True)  # type: ignore[call-arg]
    before = copy.deepcopy(ours.state_dict())
    for number in range(6):
        if number == 3:
            for group in (*optimizer.groups, *reference.param_groups):
                group["lr"] /= 10
        steps(ours, optimizer, range(number, number + 1))
        torch.manual_seed(number)
        reference.zero_grad()
        theirs.loss(*batch(number)).backward()
        reference.step()
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name
        assert not torch.equal(before[name], weight), name


def test_gradients_are_freed_and_what_has_none_is_left_alone() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = Adam([{"params": [used, unused], "lr": 0.1}])
    optimizer.minimise(used.square().sum())
    assert used.grad is None
    assert torch.equal(unused, torch.ones(3))
    assert used.tolist() == pytest.approx([0.9] * 3)
    assert optimizer.state()["1.steps"] == 0


def test_a_large_gradient_is_freed_before_the_next_one_is_made() -> None:
    first, second = nn.Parameter(torch.ones(2**10)), nn.Parameter(torch.ones(2**10, 2**10))
    seen = []
    first.register_hook(lambda _: seen.append((second.grad, bool((second == 1).any()))))
    Adam([{"params": [first, second], "lr": 0.1}]).minimise((second @ (2 * first)).sum())
    assert seen == [(None, False)]
    assert first.grad is None


def test_its_state_is_all_that_the_next_steps_depend_on() -> None:
    whole, first = head(), head()
    steps(whole, Adam(whole.parameter_groups(1e-2)), range(6))
    optimizer = Adam(first.parameter_groups(1e-2))
    steps(first, optimizer, range(3))
    second = head()
    second.load_state_dict(first.state_dict())
    resumed = Adam(second.parameter_groups(1e-2))
    for name, tensor in resumed.state().items():
        tensor.copy_(optimizer.state()[name])
    steps(second, resumed, range(3, 6))
    assert all(torch.equal(second.state_dict()[name], weight) for name, weight in whole.state_dict().items())


def test_torchs_compiler_is_not_imported() -> None:
    code = (
        "import sys, torch; from stages.train.optimizer import Adam; weight = torch.ones(2, requires_grad=True); "
        "Adam([{'params': [weight], 'lr': 0.1}]).minimise(weight.sum()); sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
