from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.train.heads import build_head
from stages.train.heads.authors_state import from_authors_state
from stages.train.heads.settings import LtdSettings
from storage.errors import DataError

GOLDEN = Path(__file__).parents[3] / "data" / "authors_head_golden.npz"


@pytest.fixture
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def head_state(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in golden.items() if name not in {"features", "logits", "window_start"}}


def test_the_authors_weights_give_the_authors_logits(golden: dict[str, Tensor]) -> None:
    head = build_head(LtdSettings(), blocks=24, width=64, embedding=48).eval()
    head.load_state_dict(from_authors_state(head_state(golden)))
    features = golden["features"][:, list(head.reads.blocks)]  # (8, 9, 64) of (8, 24, 64)
    with torch.inference_mode():
        torch.testing.assert_close(head(features), golden["logits"], rtol=0, atol=1e-5)
    told = head.describe()
    assert told["window_start"] == int(golden["window_start"]) == 14
    assert told["pi"] == golden["selector.logits"].tolist()


def test_missing_and_unknown_keys_are_named(golden: dict[str, Tensor]) -> None:
    state = head_state(golden)
    state["encoder.layers.1.norm1.weight"] = state.pop("origin_cls")
    with pytest.raises(DataError, match=r"missing keys \['origin_cls'\], unknown keys \['encoder\.layers\.1\.norm1"):
        from_authors_state(state)
