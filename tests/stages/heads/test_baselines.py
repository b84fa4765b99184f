"""The heads beside LTD: linear probes, UnivFD, RINE; and the dropout that all share."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from stages.heads.file import build_head
from stages.heads.head import Dropout, HeadInput
from stages.heads.rine import RineHead, supervised_contrastive
from stages.heads.settings import LinearSettings, RineSettings, UnivfdSettings

EVERY = tuple(range(12))


def build(settings, blocks=12, width=32):
    torch.manual_seed(0)
    return build_head(settings, blocks=blocks, width=width, embedding=24)


def rine(**values):
    head = build(RineSettings.model_validate({"depth": 2, "project": 16, **values}))
    assert isinstance(head, RineHead)
    return head


@pytest.mark.parametrize(
    ("settings", "reads", "size"),
    [
        (LinearSettings(block=3), HeadInput("cls", (3,)), 32),
        (LinearSettings(block="all"), HeadInput("cls", EVERY), 12 * 32),
        (LinearSettings(block="mean"), HeadInput("mean", ()), 32),
        (UnivfdSettings(), HeadInput("embedding", ()), 24),
    ],
)
def test_a_linear_probe_is_one_layer_over_what_it_reads(settings, reads, size):
    head = build(settings)
    assert head.reads == reads
    weight, bias = head.parameters()
    assert (weight.numel(), bias.item()) == (size, 0)
    features = torch.randn(7, *head.feature_shape)
    torch.testing.assert_close(head(features), features.reshape(7, -1) @ weight[0] + bias)


def test_a_linear_probe_is_initialised_as_univfd():
    weight, _ = build(LinearSettings(block="all"), 24, 1024).parameters()
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=5e-4)


@pytest.mark.parametrize(
    ("depth", "project", "count"),
    [
        (4, 1024, 10_521_601),
        (4, 128, 283_009),
    ],
)
def test_rine_has_the_published_numbers_of_parameters(depth, project, count):
    with torch.device("meta"):
        head = nn.Module.train(build(RineSettings(depth=depth, project=project), 24, 1024))
    assert sum(parameter.numel() for parameter in head.parameters()) == count


def contrastive_by_hand(z, labels, temperature):
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        similar = {j: sum(a * b for a, b in zip(z[i], z[j], strict=True)) / temperature for j in others}
        total = sum(math.exp(value) for value in similar.values())
        partners = [j for j in others if labels[j] == labels[i]]
        if partners:
            losses.append(-sum(similar[j] - math.log(total) for j in partners) / len(partners))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1]])
def test_supervised_contrastive_loss_by_hand(labels):
    torch.manual_seed(0)
    z = normalize(torch.randn(len(labels), 6, dtype=torch.float64), dim=1).requires_grad_()
    found = supervised_contrastive(z, torch.tensor(labels).float(), 0.07)
    assert found.item() == pytest.approx(contrastive_by_hand(z.tolist(), labels, 0.07), rel=1e-9)
    found.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_rines_loss_is_entropy_plus_weighted_contrast(reduction):
    head = rine(reduction=reduction, contrastive=0.4, contrastive_temperature=0.2).eval()
    features, labels = torch.randn(6, 12, 32), torch.tensor([0.0, 1, 0, 1, 1, 0])
    importance = head.importance.softmax(0)
    z = normalize(head.refine((importance * head.project(features)).sum(1)), dim=1)
    expected = binary_cross_entropy_with_logits(head(features), labels, reduction=reduction)
    expected = expected + 0.4 * contrastive_by_hand(z.tolist(), labels.int().tolist(), 0.2)
    torch.testing.assert_close(head.loss(features, labels), expected)


@pytest.mark.parametrize(
    "p",
    [
        0.3,
    ],
)
def test_each_element_is_dropped_with_probability_p_and_the_rest_scaled(p):
    torch.manual_seed(0)
    x = torch.full((500, 400), 2.0, requires_grad=True)
    found = Dropout(p)(x)
    kept = found != 0
    assert kept.double().mean().item() == pytest.approx(1 - p, abs=0.004)
    assert found[kept].unique().tolist() == pytest.approx([2 / (1 - p)], rel=1e-4)
    for shift in range(1, 8):  # the four elements of one draw, and their neighbours, are independent
        both = (kept[:, shift:] & kept[:, :-shift]).double().mean().item()
        assert both == pytest.approx((1 - p) ** 2, abs=0.008)
    assert kept.double().mean(dim=0).std().item() == pytest.approx((p * (1 - p) / 500) ** 0.5, rel=0.2)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient * x, found)
