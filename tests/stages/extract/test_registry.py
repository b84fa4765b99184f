"""The registry's facts against the models as their libraries build them (without memory for weights)."""

import open_clip
import pytest
import timm
import torch
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD

from stages.extract.registry import BACKBONES
from stages.extract.towers import build_tower


@pytest.mark.parametrize("card", BACKBONES.values(), ids=BACKBONES)
def test_card_states_what_is_built(card):
    with torch.device("meta"):
        tower = build_tower(card) if card.library != "demo" else None
    tower = tower or build_tower(card)
    assert len(tower.blocks) == card.blocks
    assert tower.activation == card.activation
    assert tower.has_class_token == (card.token == "class")
    device = next(tower.module.parameters()).device
    tokens, beside = tower.start(torch.zeros(2, 3, card.size, card.size, device=device))
    assert tokens.shape[2] == card.width
    assert [each.shape for each in tower.run(0, tokens, beside)] == [tokens.shape] * 2 + [(2, 0)]
    *of_class, attention = tower.run(0, tokens, beside, class_only=True, attends=True)
    assert [each.shape for each in of_class] == [(2, 1, card.width)] * 2
    assert attention.shape == (2, card.patches or 0)  # other models than CLIP's give none
    assert tower.pool(tokens).shape == (2, card.width)
    assert tower.project(tower.pool(tokens)).shape == (2, card.embedding)


@pytest.mark.parametrize("card", [c for c in BACKBONES.values() if c.library == "open_clip"], ids=lambda c: c.name)
def test_card_agrees_with_open_clips_own_facts(card):
    published = open_clip.get_pretrained_cfg(card.model, card.tag)
    assert published, "open_clip does not know these weights"
    assert (tuple(published["mean"]), tuple(published["std"])) == (card.mean, card.std)
    assert bool(published.get("quick_gelu")) == (card.activation == "quickgelu")
    assert open_clip.get_model_config(card.model)["vision_cfg"]["image_size"] == card.size
    if card.tag == "openai":
        assert published["url"].split("/")[-2] == card.sha256


@pytest.mark.parametrize("card", [c for c in BACKBONES.values() if c.library == "timm"], ids=lambda c: c.name)
def test_card_agrees_with_timms_own_facts(card):
    published = timm.get_pretrained_cfg(f"{card.model}.{card.tag}")
    assert (tuple(published.mean), tuple(published.std)) == (card.mean, card.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert published.hf_hub_id
