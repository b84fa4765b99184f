import torch
from torch import nn

from stages.heads.file import build_head
from stages.heads.head import HeadInput
from stages.heads.ltd import LayerTransformerHead
from stages.heads.settings import LayerTransformerSettings


def build(**values: object) -> LayerTransformerHead:
    settings = LayerTransformerSettings.model_validate({"heads": 4, **values})
    head = build_head(settings, blocks=12, width=32, embedding=8)
    assert isinstance(head, LayerTransformerHead)
    return head


def test_same_logits_as_torchs_layer_over_the_tokens_of_all_blocks() -> None:
    torch.manual_seed(0)
    head = build().eval()
    assert head.reads == HeadInput("cls", tuple(range(12)))
    own = head.encoder
    layer = nn.TransformerEncoderLayer(32, 4, 128, 0.3, activation="gelu", batch_first=True).eval()
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": own.in_weight,
            "self_attn.in_proj_bias": own.in_bias,
            "self_attn.out_proj.weight": own.out.weight,
            "self_attn.out_proj.bias": own.out.bias,
            "linear1.weight": own.expand.weight,
            "linear1.bias": own.expand.bias,
            "linear2.weight": own.contract.weight,
            "linear2.bias": own.contract.bias,
            "norm1.weight": own.norm_attention.weight,
            "norm1.bias": own.norm_attention.bias,
            "norm2.weight": own.norm_feed_forward.weight,
            "norm2.bias": own.norm_feed_forward.bias,
        }
    )
    features, branch = torch.randn(5, 12, 32), head.branches["raw"]
    first = branch.class_token.expand(5, 1, -1)
    encoded = layer(torch.cat([first, features + branch.position], dim=1))[:, 0]
    torch.testing.assert_close(head(features), head.classifier(head.norm(encoded)).squeeze(1), rtol=0, atol=1e-5)


def test_it_tells_of_no_window_and_positions_may_be_left_out() -> None:
    assert build().describe() == {}
    names = [name for name, _ in build(position=False).named_parameters()]
    assert not any("position" in name or "selection" in name for name in names)
