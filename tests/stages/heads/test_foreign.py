import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from planted import SPEC, labels_of, noise, write_view
from running import PROJECT, invoke
from stages.heads.file import build_head
from stages.heads.foreign import run
from stages.heads.settings import LtdSettings, RineSettings, UnivfdSettings
from storage.atomic import sha256_of
from storage.errors import DataError, SettingError
from storage.features import FeatureTable
from storage.headfile import load_head, save_head
from storage.index import INDEX_NAME, fingerprint, read_index

GOLDEN = Path(__file__).parents[2] / "data" / "authors_head_golden.npz"


@pytest.fixture
def features(tmp_path):
    """Features of width 64 and an embedding of 48."""
    return write_view(tmp_path / "view", noise(4, width=64), labels_of(4), spec=replace(SPEC, embedding=48))


@pytest.fixture
def golden():
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def authors_checkpoint(golden, path):
    """What their training writes: head and frozen CLIP in one mapping, an optimizer beside it."""
    head = {name: value for name, value in golden.items() if name not in {"features", "logits", "window_start"}}
    clip = {"model.visual.proj": torch.ones(2, 2), "model.token_embedding.weight": torch.ones(3)}
    torch.save({"model": head | clip, "optimizer": {"state": {}, "param_groups": []}, "total_steps": 7}, path)
    return path


def imported(file, kind, features, **more):
    out = file.with_suffix(".safetensors")
    settings = run(
        **{"file": file, "kind": kind, "features": features, "name": "theirs", "seed": 0, "out": out, **more}
    )
    weights, metadata = load_head(out)
    module = build_head(settings, blocks=24, width=64, embedding=48).eval()
    module.load_state_dict(weights)
    return module, metadata


def test_the_authors_checkpoint_gives_their_logits(golden, features, tmp_path):
    file = authors_checkpoint(golden, tmp_path / "theirs.pth")
    module, metadata = imported(file, "ltd-authors", features)
    with torch.inference_mode():
        logits = module(golden["features"][:, list(module.reads.blocks)])
    torch.testing.assert_close(logits, golden["logits"], rtol=0, atol=1e-5)
    assert metadata["settings"] == LtdSettings(candidates=(11, 19)).model_dump(mode="json")
    assert metadata["facts"]["window_start"] == int(golden["window_start"]) == 14
    assert metadata["facts"]["pi"] == golden["selector.logits"].tolist()
    assert metadata["imported"]["format"] == "ltd-authors"
    assert metadata["feature_key"] == FeatureTable.open(features).spec.key
    assert metadata["parameters"] == sum(parameter.numel() for parameter in module.parameters())
    assert metadata["imported"]["sha256"] == sha256_of(file)
    assert metadata["corpus_index_sha256"] == fingerprint(read_index(features / INDEX_NAME))
    shifted, _ = imported(file, "ltd-authors", features, first_block=9)
    assert shifted.reads.blocks == tuple(range(9, 18))
    _, fewer = imported(file, "ltd-authors", features, heads=4, seed=3)
    assert (fewer["settings"]["heads"], fewer["seed"]) == (4, 3)


@pytest.mark.parametrize("name", ["ufd_best.pth", "ufd_fcdot.pth", "ufd_module.pth"])
def test_univfd_training_checkpoints(tmp_path, name):
    file = PROJECT / "tests" / "data" / "field" / "univfd-training-checkpoint" / name
    content = torch.load(file, weights_only=True)
    theirs = content.get("model", content)
    (weight,) = (value for key, value in theirs.items() if key in {"fc.weight", "module.weight"})
    (bias,) = (value for key, value in theirs.items() if key in {"fc.bias", "module.bias"})
    spec = replace(SPEC, embedding=weight.shape[1])
    view = write_view(tmp_path / "view", noise(4, width=64), labels_of(4), spec=spec)
    out = tmp_path / "head.safetensors"
    run(file=file, kind="univfd", features=view, name="theirs", seed=0, out=out)
    weights, _ = load_head(out)
    assert torch.equal(weights["classifier.weight"], weight)
    assert torch.equal(weights["classifier.bias"], bias)


def _wrapped(state, spelling):
    wrapped = {f"module.{key}": value for key, value in state.items()}
    return {
        "long entry": {"model_state_dict": wrapped, "best": 0.9},
        "compiled": {f"module._orig_mod.{key}": value for key, value in state.items()},
        "averaged": {"n_averaged": torch.tensor(4), **wrapped},
    }[spelling]


@pytest.mark.parametrize(
    "spelling",
    [
        "long entry",
        "compiled",
        "averaged",
    ],
)
def test_each_kind_in_each_spelling(golden, features, tmp_path, spelling):
    ltd = torch.load(authors_checkpoint(golden, tmp_path / "ltd.pth"), weights_only=True)["model"]
    rine = {"clip.visual.proj": torch.ones(2), **TheirRine(24, 64, 16, 1).state_dict()}
    univfd = {"model.visual.proj": torch.ones(2), "fc.weight": torch.ones(1, 48), "fc.bias": torch.ones(1)}
    for kind, state in (("ltd-authors", ltd), ("rine", rine), ("univfd", univfd)):
        torch.save(_wrapped(state, spelling), tmp_path / "theirs.pth")
        imported(tmp_path / "theirs.pth", kind, features)


class TheirRine(nn.Module):
    """RINE's layers under the names of its checkpoints."""

    def __init__(self, blocks, width, size, depth):
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(1, blocks, size))
        stacks = {}
        for name, first in (("proj1", width), ("proj2", size)):
            parts = [nn.Dropout()]
            for number in range(depth):
                parts += [nn.Linear(size if number else first, size), nn.ReLU(), nn.Dropout()]
            stacks[name] = nn.Sequential(*parts)
        self.proj1, self.proj2 = stacks["proj1"], stacks["proj2"]
        middle = [nn.Linear(size, size), nn.ReLU(), nn.Dropout(), nn.Linear(size, size), nn.ReLU(), nn.Dropout()]
        self.head = nn.Sequential(*middle, nn.Linear(size, 1))

    def forward(self, tokens):
        weighted = (self.alpha.softmax(dim=1) * self.proj1(tokens)).sum(dim=1)
        logits = self.head(self.proj2(weighted))
        return logits.squeeze(1)


@pytest.mark.parametrize("depth", [1, 4])
def test_rine_weights(features, tmp_path, depth):
    torch.manual_seed(0)
    theirs = TheirRine(24, 64, 16, depth).eval()
    torch.save(theirs.state_dict(), tmp_path / "model_1class_trainable.pth")
    module, metadata = imported(tmp_path / "model_1class_trainable.pth", "rine", features)
    x = torch.randn(5, 24, 64)
    torch.testing.assert_close(module(x), theirs(x))
    assert metadata["settings"] == RineSettings(depth=depth, project=16).model_dump(mode="json")


def test_another_width_or_depth_is_refused_with_both_shapes(golden, features, tmp_path):
    torch.save(nn.Linear(768, 1).state_dict(), tmp_path / "fc.pth")
    with pytest.raises(DataError, match=r"classifier.weight is \(1, 768\) in the file, \(1, 48\) for these features"):
        imported(tmp_path / "fc.pth", "univfd", features)
    torch.save(TheirRine(12, 64, 16, 1).state_dict(), tmp_path / "rine.pth")
    with pytest.raises(DataError, match=r"importance is \(12, 16\) in the file, \(24, 16\) for these features"):
        imported(tmp_path / "rine.pth", "rine", features)
    file = authors_checkpoint(golden, tmp_path / "ltd.pth")
    wider = write_view(tmp_path / "wide", noise(4, width=32), labels_of(4))
    with pytest.raises(DataError, match=r"is \(64,\) in the file, \(32,\) for these features"):
        imported(file, "ltd-authors", wider)
    with pytest.raises(SettingError, match=r"candidates 18\.\.26 go beyond the backbone's last block, 23"):
        imported(file, "ltd-authors", features, first_block=18)


def test_a_checkpoint_of_another_kind_is_refused(golden, features, tmp_path):
    file = authors_checkpoint(golden, tmp_path / "ltd.pth")
    with pytest.raises(DataError, match="not UnivFD's linear layer: missing keys"):
        imported(file, "univfd", features)
    with pytest.raises(DataError, match="not RINE's head: missing keys"):
        imported(file, "rine", features)
    for content, fault in (
        ({"weight": torch.ones(1, 48), "bias": 0.5}, r"missing keys \['bias'\]"),
        ([torch.ones(1, 48)], "holds no mapping of names to tensors"),
        (nn.Linear(48, 1), r"a whole pickled model.* torch\.save\(model\.state_dict\(\), FILE\)"),
    ):
        torch.save(content, tmp_path / "values.pth")
        with pytest.raises(DataError, match=fault):
            imported(tmp_path / "values.pth", "univfd", features)
    with pytest.raises(DataError, match="does not exist"):
        imported(tmp_path / "none.pth", "univfd", features)
    golden["encoder.layers.1.norm1.weight"] = golden.pop("origin_cls")
    file = authors_checkpoint(golden, tmp_path / "two_layers.pth")
    with pytest.raises(DataError, match=r"missing keys \['origin_cls'\], unknown keys \['encoder\.layers\.1\.norm1"):
        imported(file, "ltd-authors", features)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("old_form", [False, True])
def test_code_in_a_checkpoint_is_never_run(features, tmp_path, monkeypatch, old_form):
    monkeypatch.chdir(tmp_path)
    if old_form:
        (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"weight": Bomb()}))
    else:
        torch.save({"weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(DataError, match="cannot be read as a checkpoint of tensors alone"):
        imported(tmp_path / "bomb.pth", "univfd", features)
    assert not (tmp_path / "exploded").exists()


def test_commands_import_and_show(features, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(48, 1).state_dict(), tmp_path / "fc.pth")
    done = invoke("import-head", "fc.pth", "--format", "univfd", "--features", features)
    assert done.exit_code == 0, done.exception
    card = invoke("show", "heads/univfd/0.safetensors").output
    assert card.startswith("# univfd, seed 0\n")
    assert "| Imported from | fc.pth (univfd), sha256 " in card
    assert UnivfdSettings().type in card
    save_head(Path("head.safetensors"), {}, {"settings": {}})
    refused = invoke("show", "head.safetensors")
    assert "does not say its facts, feature_key, feature_spec, head" in str(refused.exception)
    invoke("show", "heads/univfd/0.safetensors", "--out", "card.md")
    assert (tmp_path / "card.md").read_text() == card
