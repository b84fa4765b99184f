"""Taps against the libraries' own ways to the same numbers."""

import copy
import dataclasses
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import QuickGELU, VisionTransformer
from torch._dynamo.utils import counters

from stages.extract import demo_vit, towers
from stages.extract.backbone import Backbone, load_backbone
from stages.extract.registry import BackboneCard
from stages.extract.towers import TimmTower
from storage.errors import SettingError

ALL = ("cls", "ln2_cls", "embedding", "pooled", "mean")
CPU = torch.device("cpu")


def pixels(card, count=2):
    return np.random.default_rng(0).integers(0, 256, (count, card.size, card.size, 3), dtype=np.uint8)


def normalised(card, values):
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (card.mean, card.std))
    return (torch.from_numpy(values).permute(0, 3, 1, 2) / 255 - mean) / std


def closeness(found, expected):
    """Largest difference relative to the largest number."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def open_clips_own(backbone):
    """open_clip's model with a backbone's weights, built without any of our code."""
    if backbone.card.library == "demo":
        model = VisionTransformer(
            image_size=demo_vit.IMAGE_SIZE,
            patch_size=demo_vit.PATCH,
            width=demo_vit.WIDTH,
            layers=demo_vit.BLOCKS,
            heads=demo_vit.ATTENTION_HEADS,
            mlp_ratio=4.0,
            output_dim=demo_vit.EMBEDDING,
            act_layer=QuickGELU,
        )
    else:
        config = open_clip.get_model_config(backbone.card.model)
        model = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config["quick_gelu"])
    model.load_state_dict(backbone.tower.module.state_dict())
    return model.eval()


def reference(backbone, images):
    """The taps but those from inside a block, by open_clip's forward_intermediates."""
    model = open_clips_own(backbone)
    with torch.inference_mode():
        out = model.forward_intermediates(images, output_extra_tokens=True)
        normed = model.forward_intermediates(
            images, output_extra_tokens=True, output_fmt="NLC", normalize_intermediates=True
        )
    return {
        "cls": torch.stack([prefix[:, 0] for prefix in out["image_intermediates_prefix"]]),
        "embedding": out["image_features"],
        "pooled": normed["image_intermediates_prefix"][-1][:, 0],
        "mean": normed["image_intermediates"][-1].mean(1),
    }


@pytest.mark.parametrize("name", ["tiny", "tiny-gelu", "demo-vit"])
def test_taps_equal_open_clips_intermediates(tiny, name):
    backbone = load_backbone(name, weights="random:3", precision="fp32")
    values = pixels(backbone.card)
    expected = reference(backbone, normalised(backbone.card, values))
    # the last block is computed in another way where no patch is needed
    for taps in (tuple(expected), ("cls",), ("cls", "embedding"), ("pooled",), ("embedding",)):
        found = backbone.taps(values, taps, range(backbone.card.blocks))
        assert list(found) == list(taps)
        for tap in taps:
            assert closeness(found[tap], expected[tap]) < 1e-5
            assert torch.nn.functional.cosine_similarity(found[tap], expected[tap], dim=-1).min() > 0.9999


@pytest.mark.parametrize("taps", [("attention",), ("attention", "mean")], ids=["class token alone", "all tokens"])
def test_attention_is_torchs_own_weights(tiny, taps):
    backbone = load_backbone("tiny", weights="random:3", precision="fp32")
    values, seen = pixels(backbone.card, 6), []  # more than one stream on a CPU

    def watch(attention, arguments, options):
        _, weights = torch.nn.MultiheadAttention.forward(attention, *arguments, **options | {"need_weights": True})
        seen.append(weights[:, 0, 1:])  # (N, T, T) -> (N, P)

    model = open_clips_own(backbone)
    for block in model.transformer.resblocks:
        block.attn.register_forward_pre_hook(watch, with_kwargs=True)
    with torch.inference_mode():
        model(normalised(backbone.card, values))
    blocks = range(1, backbone.card.blocks)
    found = backbone.taps(values, taps, blocks)["attention"]
    assert found.shape[2] == backbone.card.patches
    assert (found - torch.stack(seen[1:])).abs().max() < 1e-6


def test_ln2_is_the_norm_inside_each_block(tiny):
    backbone = load_backbone("tiny", weights="random:3", precision="fp32")
    values = pixels(backbone.card)
    seen = []
    model = open_clips_own(backbone)
    for block in model.transformer.resblocks:
        block.ln_2.register_forward_hook(lambda _m, _i, out: seen.append(out[:, 0]))
    with torch.inference_mode():
        model(normalised(backbone.card, values))
    found = backbone.taps(values, ("ln2_cls",), [0, 2])["ln2_cls"]
    assert closeness(found, torch.stack([seen[0], seen[2]])) < 1e-5


SMALL = {"depth": 3, "embed_dim": 64, "num_heads": 2}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("vit_base_patch14_reg4_dinov2", {"img_size": 224, "global_pool": "token"}),
        ("vit_pe_core_base_patch16_224", {"ref_feat_shape": None}),
        ("vit_base_patch16_siglip_224", {}),
    ],
)
def test_timm_families_give_their_own_intermediates(model, options):
    import timm

    options = {key: value for key, value in options.items() if value is not None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = timm.create_model(model, num_classes=0, **SMALL, **options)
        for name, scale in trunk.named_parameters():  # of each block's two branches; new models hide both by 1e-5
            if "gamma" in name.rsplit(".", 1)[-1]:
                torch.nn.init.uniform_(scale, 0.5, 1.5)
    own = copy.deepcopy(trunk).eval()  # a tower changes how its model's layers run
    tower = TimmTower(trunk.eval().requires_grad_(False))
    card = BackboneCard(
        name="small",
        library="timm",
        model=model,
        activation="gelu",
        blocks=3,
        width=64,
        embedding=64,
        licence="",
        token="class" if tower.has_class_token else "patch-mean",
    )
    backbone = Backbone(card=card, tower=tower, weights="", device=CPU, precision="fp32")
    values = pixels(card)
    with torch.inference_mode():
        final, blocks = own.forward_intermediates(
            normalised(card, values), return_prefix_tokens=tower.prefix > 0, output_fmt="NLC"
        )
        expected = {"embedding": own.forward_head(final), "pooled": own.forward_head(final, pre_logits=True)}
    prefixed = tower.prefix > 0
    patches = torch.stack([block[0] if prefixed else block for block in blocks])
    token = torch.stack([block[1][:, 0] for block in blocks]) if prefixed else patches.mean(2)
    assert (card.token == "class") == prefixed
    for taps in (("cls",), ("cls", "embedding"), ALL):
        found = backbone.taps(values, taps, range(3))
        assert closeness(found["cls"], token) < 1e-5, taps
    expected["mean"] = final[:, tower.prefix :].mean(1)
    for tap, value in expected.items():
        assert closeness(found[tap], value) < 1e-5


def test_random_weights_are_the_seeds_and_leave_torchs_generator_alone(tiny):
    state = torch.random.get_rng_state()
    first, again, other = (load_backbone("tiny", weights=f"random:{s}", precision="fp32").weights for s in (1, 1, 2))
    assert first == again != other
    assert [first[:9], other[:9]] == ["random:1:", "random:2:"]
    assert torch.equal(state, torch.random.get_rng_state())


def test_residual_stream_stays_in_single_precision(tiny):
    backbone = dataclasses.replace(load_backbone("tiny", weights="random:0", precision="fp32"), precision="fp16")
    streams, products = [], []
    for block in backbone.tower.blocks:
        block.ln_1.register_forward_pre_hook(lambda _m, arguments: streams.append(arguments[0].dtype))
        block.mlp.c_fc.register_forward_hook(lambda _m, _i, out: products.append(out.dtype))
    found = backbone.taps(pixels(backbone.card), ("cls", "embedding"), range(3))
    assert streams == [torch.float32] * 3
    assert products == [torch.float16] * 3
    assert found["cls"].dtype == found["embedding"].dtype == torch.float32


def test_blocks_are_compiled_once_for_all(monkeypatch):
    """By a backend that starts at once: what is compiled how often is the same with every one."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, counts = load_backbone("demo-vit", weights="default", precision="fp32"), []
    values = pixels(plain.card, 4)
    for taps, blocks, calls in ((("cls", "embedding"), range(24), 1), (("cls", "ln2_cls"), range(17, 20), 9)):
        counters.clear()
        compiled = load_backbone("demo-vit", weights="default", precision="fp32", compiled=True)
        expected = plain.taps(values, taps, blocks)
        for _ in range(calls):
            found = compiled.taps(values, taps, blocks)
        assert all(closeness(found[tap], expected[tap]) < 1e-5 for tap in taps)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts == [2, 2]  # the last block is another function than the 23 before it


def test_the_fast_product_is_functional_linears(monkeypatch):
    rows, layer = torch.randn(2, 5, 64), torch.nn.Linear(64, 48).requires_grad_(False)
    expected = torch.nn.functional.linear(rows, layer.weight, layer.bias)
    for switch in (towers.USE_ONEDNN, False):
        monkeypatch.setattr(towers, "USE_ONEDNN", switch)
        assert closeness(towers.linear(rows, layer.weight, layer.bias), expected) < 1e-6
        assert closeness(towers.linear(rows, layer.weight, None), expected - layer.bias) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "clip"}, "choose from clip-vit-l-14"),
        ({"weights": "random:x"}, "expected random:SEED"),
        ({"precision": "fp16"}, "needs a CUDA device"),
    ],
)
def test_unusable_settings_are_explained(tiny, arguments, words):
    if torch.cuda.is_available() and "precision" in arguments:
        pytest.skip("this machine can do it")
    with pytest.raises(SettingError, match=words):
        load_backbone(**{"name": "tiny", "weights": "random:0", "precision": "fp32"} | arguments)
