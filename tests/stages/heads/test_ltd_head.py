import itertools

import pytest
import torch
from plain_ltd import PlainLtd
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from stages.heads.file import build_head
from stages.heads.ltd import LtdHead
from stages.heads.settings import LtdSettings
from storage.errors import SettingError


def build(blocks=24, width=64, **settings):
    head = build_head(LtdSettings.model_validate(settings), blocks=blocks, width=width, embedding=48)
    assert isinstance(head, LtdHead)
    return head


def pair(dropout=0.0):
    """The head and the plain reference with the same weights, none of them (biases, norms) at its initial constant."""
    torch.manual_seed(0)
    plain = PlainLtd(9, 5, 64, dropout)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    head = build(dropout=dropout)
    missing, unexpected = head.load_state_dict(plain.renamed(), strict=False)
    assert (missing, unexpected) == ([], [])
    return head, plain


def features(n_images=16, rows=9, width=64):
    """Tokens that wander from block to block, with a few dimensions much larger than the rest, as CLIP's."""
    steps = torch.randn(n_images, rows, width).cumsum(1)
    steps[..., :2] *= 20
    return steps


def labels(n_images=16):
    return (torch.arange(n_images) % 2).float()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("training", [True, False])
def test_same_logits_and_gradients_as_the_plain_encoder_layer(dtype, tolerance, training):
    head, plain = (module.to(dtype).train(training) for module in pair())
    x, y = features().to(dtype), labels().to(dtype)
    torch.manual_seed(7)
    found = head(x)
    torch.manual_seed(7)  # the same Gumbel draw
    expected = plain(x)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)

    binary_cross_entropy_with_logits(found, y).backward()
    binary_cross_entropy_with_logits(expected, y).backward()
    found_grads = {name: parameter.grad for name, parameter in head.named_parameters()}
    assert (plain.pi.grad is not None) is training
    for name, parameter in plain.renamed().items():
        if parameter.grad is None:
            assert found_grads[name] is None, name
        else:
            torch.testing.assert_close(found_grads[name], parameter.grad, rtol=tolerance, atol=tolerance, msg=name)
    if training:
        assert found_grads["selection.pi"] is not None
        assert found_grads["selection.pi"].abs().max() > 1e-3


def test_published_parameter_count():
    with torch.device("meta"):
        head = nn.Module.train(build(width=1024))
    assert sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad) == 12_613_638


def test_initial_statistics():
    torch.manual_seed(0)
    head = build(width=512)
    for branch in ("raw", "delta"):
        tokens = head.branches[branch]
        for parameter in (tokens.class_token, tokens.position):
            assert isinstance(parameter, Tensor)
            assert parameter.mean().item() == pytest.approx(0, abs=0.15)
            assert parameter.std().item() == pytest.approx(1, abs=0.1)
    bound = (1 / 1024) ** 0.5  # torch's default of a linear layer of 1,024 inputs
    assert head.classifier.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
    assert torch.equal(head.norm.weight, torch.ones(1024))


@pytest.mark.parametrize("selection", ["gumbel", "fixed:12", "fixed:2,16"])
def test_evaluation_draws_nothing_and_treats_images_one_by_one(selection):
    torch.manual_seed(0)
    head = build(selection=selection).eval()
    x = features(rows=len(head.reads.blocks))
    before = torch.get_rng_state()
    with torch.inference_mode():
        logits = head(x)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(head(x[order]), logits[order], rtol=0, atol=1e-5)
        alone = torch.cat([head(image) for image in x.split(1)])
        torch.testing.assert_close(alone, logits, rtol=0, atol=1e-5)
        assert torch.equal(head(x), logits)
    assert torch.equal(torch.get_rng_state(), before)
    assert logits.std() > 1e-3


def test_of_two_windows_each_has_branches_of_its_own():
    torch.manual_seed(0)
    head = build(24, 32, selection="fixed:16,2", heads=4, dropout=0.0)
    assert head.describe() == {"window_start": 2, "window_start_2": 16}
    assert head.reads.blocks == tuple(range(2, 21))
    assert (list(head.branches), head.classifier.in_features) == (["raw", "delta", "raw2", "delta2"], 4 * 32)
    x = features(8, 19, 32).requires_grad_()
    joined = head.joined(x)
    (moved,) = torch.autograd.grad(joined[:, : 2 * 32].sum(), x, retain_graph=True)
    assert moved.abs().sum((0, 2)).nonzero().flatten().tolist() == list(range(5))  # blocks 2..6
    (moved,) = torch.autograd.grad(joined[:, 2 * 32 :].sum(), x)
    assert moved.abs().sum((0, 2)).nonzero().flatten().tolist() == list(range(14, 19))  # blocks 16..20


ABLATIONS = list(
    itertools.product([["raw"], ["delta"], ["raw", "delta"]], [True, False], ["gumbel", "fixed:6"], [(12, 5), (24, 2)])
)


@pytest.mark.parametrize(("branches", "position", "selection", "size"), ABLATIONS)
def test_every_ablation_trains(branches, position, selection, size):
    torch.manual_seed(0)
    blocks, window = size
    head = build(blocks, 32, branches=branches, position=position, selection=selection, window=window, heads=4)
    assert head.classifier.in_features == 32 * len(branches)
    assert head.encoder.heads == 4
    named = dict(head.named_parameters())
    assert ("selection.pi" in named) is (selection == "gumbel")
    assert sum("position" in name for name in named) == position * len(branches)
    optimizer = torch.optim.AdamW(head.parameter_groups(1e-2), weight_decay=0)
    x, before = features(16, len(head.reads.blocks), 32), {name: p.detach().clone() for name, p in named.items()}
    binary_cross_entropy_with_logits(head(x), labels()).backward()
    optimizer.step()
    for name, parameter in named.items():
        # one candidate window only: nothing to choose, so no gradient
        still = name == "selection.pi" and parameter.numel() == 1
        assert torch.equal(parameter, before[name]) is still, name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(candidates=[16, 24]), r"candidates 16\.\.24 go beyond the backbone's last block, 23"),
        (lambda: build(blocks=6), r"window 5 is longer than the 3 blocks of candidates 2\.\.4"),
        (lambda: build(selection="fixed:2,20"), r"'fixed:2,20' with window 5 needs blocks 20\.\.24, outside"),
        (lambda: build(selection="fixed:10", candidates=[11, 19]), r"10\.\.14, outside the candidates 11\.\.19"),
        (lambda: build(width=100), "8 attention heads do not divide the backbone's width 100"),
    ],
)
def test_settings_that_do_not_fit_the_backbone(make, message):
    with pytest.raises(SettingError, match=message):
        make()
