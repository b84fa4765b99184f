import pytest
import torch

from stages.heads.file import build_head
from stages.heads.head import HeadInput
from stages.heads.linear import LinearHead
from stages.heads.settings import LinearSettings, UnivfdSettings
from storage.errors import SettingError


def build(block: object) -> LinearHead:
    settings = UnivfdSettings() if block == "embedding" else LinearSettings.model_validate({"block": block})
    head = build_head(settings, blocks=12, width=32, embedding=24)
    assert isinstance(head, LinearHead)
    return head


@pytest.mark.parametrize(
    ("block", "reads", "size"),
    [
        ("last", HeadInput("cls", (11,)), 32),
        (3, HeadInput("cls", (3,)), 32),
        ("all", HeadInput("cls", tuple(range(12))), 12 * 32),
        ("embedding", HeadInput("embedding", ()), 24),
    ],
)
def test_what_each_probe_reads(block: object, reads: HeadInput, size: int) -> None:
    torch.manual_seed(0)
    head = build(block)
    assert head.reads == reads
    assert sum(parameter.numel() for parameter in head.parameters()) == size + 1
    features = torch.randn(7, *head.feature_shape)
    logits = head(features)
    assert logits.shape == (7,)
    expected = features.reshape(7, -1) @ head.classifier.weight[0] + head.classifier.bias
    torch.testing.assert_close(logits, expected)


def test_initialised_as_univfd() -> None:
    torch.manual_seed(0)
    head = build_head(LinearSettings(block="all"), blocks=24, width=1024, embedding=768)
    assert isinstance(head, LinearHead)
    assert head.classifier.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert head.classifier.weight.mean().item() == pytest.approx(0, abs=5e-4)
    assert head.classifier.bias.item() == 0


def test_a_block_beyond_the_backbone_is_a_setting_error() -> None:
    with pytest.raises(SettingError, match=r"block 12 is beyond the backbone's last, 11; choose 0\.\.11"):
        build(12)


@pytest.mark.parametrize("shape", [(7, 32), (7, 2, 32), (7, 1, 16)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected features \(N, 1, 32\)"):
        build("last")(torch.zeros(shape))
