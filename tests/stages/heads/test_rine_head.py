import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from stages.heads.file import build_head
from stages.heads.head import HeadInput
from stages.heads.rine import RineHead, supervised_contrastive
from stages.heads.settings import RineSettings


def build(blocks: int = 12, width: int = 32, **values: object) -> RineHead:
    settings = RineSettings.model_validate({"depth": 2, "project": 16, **values})
    head = build_head(settings, blocks=blocks, width=width, embedding=8)
    assert isinstance(head, RineHead)
    return head


@pytest.mark.parametrize(
    ("depth", "project", "count"), [(4, 1024, 10_521_601), (4, 128, 283_009), (2, 1024, 6_323_201)]
)
def test_published_parameter_counts(depth: int, project: int, count: int) -> None:
    with torch.device("meta"):
        head = nn.Module.train(build(24, 1024, depth=depth, project=project))
    assert sum(parameter.numel() for parameter in head.parameters()) == count


def test_reads_every_block_after_its_second_norm() -> None:
    assert build().reads == HeadInput("ln2_cls", tuple(range(12)))


def test_importance_is_a_softmax_over_blocks_for_each_channel() -> None:
    torch.manual_seed(0)
    head = build().eval()
    features = torch.randn(5, 12, 32)
    projected = head.project(features)
    expected = torch.zeros(5, 16)
    for channel in range(16):
        weights = head.importance[:, channel].exp() / head.importance[:, channel].exp().sum()
        expected[:, channel] = projected[:, :, channel] @ weights
    logits = head.classifier(head.refine(expected)).squeeze(1)
    torch.testing.assert_close(head(features), logits)
    assert logits.std() > 1e-4


def test_each_linear_layer_sits_between_dropouts_and_a_relu() -> None:
    for stack in (build().project, build().refine):
        kinds = [type(module).__name__ for module in stack]
        assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout"]
    kinds = [type(module).__name__ for module in build().classifier]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert {module.p for module in build().modules() if isinstance(module, nn.Dropout)} == {0.5}
    assert build(project=4096).importance.std().item() == pytest.approx(1, abs=0.05)


def contrastive_by_hand(z: list[list[float]], labels: list[int], temperature: float) -> float:
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        similar = {j: sum(a * b for a, b in zip(z[i], z[j], strict=True)) / temperature for j in others}
        total = sum(math.exp(value) for value in similar.values())
        partners = [j for j in others if labels[j] == labels[i]]
        if partners:
            losses.append(-sum(similar[j] - math.log(total) for j in partners) / len(partners))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
def test_supervised_contrastive_loss_by_hand(labels: list[int]) -> None:
    torch.manual_seed(0)
    z = normalize(torch.randn(5, 6, dtype=torch.float64), dim=1).requires_grad_()
    found = supervised_contrastive(z, torch.tensor(labels).float(), 0.07)
    assert found.item() == pytest.approx(contrastive_by_hand(z.tolist(), labels, 0.07), rel=1e-9)
    found.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_a_batch_without_partners_has_no_contrastive_loss() -> None:
    z = torch.eye(2).requires_grad_()
    loss = supervised_contrastive(z, torch.tensor([0.0, 1.0]), 0.07)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_is_entropy_plus_weighted_contrast(reduction: str) -> None:
    torch.manual_seed(0)
    head = build(reduction=reduction, contrastive=0.4, contrastive_temperature=0.2).eval()
    features, labels = torch.randn(6, 12, 32), torch.tensor([0.0, 1, 0, 1, 1, 0])
    importance = head.importance.softmax(0)
    z = normalize(head.refine((importance * head.project(features)).sum(1)), dim=1)
    expected = binary_cross_entropy_with_logits(head(features), labels, reduction=reduction)
    expected = expected + 0.4 * contrastive_by_hand(z.tolist(), labels.int().tolist(), 0.2)
    torch.testing.assert_close(head.loss(features, labels), expected)


def test_features_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected features \(N, 12, 32\)"):
        build()(torch.zeros(4, 11, 32))
