"""What a CUDA GPU computes, against the CPU and against itself: `pytest -m gpu`, skipped where there is none."""

import numpy as np
import pytest
import torch
from extract_pictures import save

from planted import in_transitions, write_view
from stages.extract.backbone import Backbone, load_backbone
from stages.extract.settings import Runtime
from stages.heads.file import TrainedHead, score
from stages.heads.settings import LtdSettings, TrainSettings
from stages.train.run import HeadToTrain, run
from storage.features import FeatureTable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
]
TAPS = ("cls", "ln2_cls", "embedding")


def pixels(images=40):
    return np.random.default_rng(0).integers(0, 256, (images, 224, 224, 3), np.uint8)


def taps(precision, device, *, compiled=False):
    backbone = load_backbone("demo-vit", weights="random:0", precision=precision, device=device, compiled=compiled)
    found = backbone.taps(pixels(), TAPS, range(len(backbone.tower.blocks)))
    return {tap: values.cpu() for tap, values in found.items()}


@pytest.mark.parametrize(
    ("precision", "compiled", "most"), [("fp32", False, 1e-3), ("fp16", False, 1e-2), ("fp16", True, 1e-2)]
)
def test_features_are_those_of_the_cpu_but_for_rounding(precision, compiled, most):
    found, expected = taps(precision, "cuda", compiled=compiled), taps("fp32", "cpu")
    for tap in TAPS:
        error = torch.linalg.vector_norm(found[tap] - expected[tap], dim=-1)
        assert float((error / torch.linalg.vector_norm(expected[tap], dim=-1)).max()) < most, tap


def test_extraction_repeats_itself_to_the_byte_and_is_that_of_batches_alone(tiny, folder, extract):
    for number in range(40):
        save(folder / f"{number:02d}.png", seed=number)
    runtime = Runtime(loaders=0, batch=7, shard_size=16)
    _, first = extract(folder, out="first", store="a", runtime=runtime)
    _, again = extract(folder, out="again", store="b", runtime=runtime)
    assert np.array_equal(first.read("cls"), again.read("cls"))
    _, whole = extract(folder, out="whole", store="c", runtime=Runtime(loaders=0, batch=40, shard_size=40))
    assert np.abs(first.read("cls").astype(np.float32) - whole.read("cls").astype(np.float32)).max() < 0.02


def test_a_batch_too_large_for_the_gpu_is_halved(tiny, folder, extract, monkeypatch):
    for number in range(20):
        save(folder / f"{number:02d}.png", seed=number)
    _, expected = extract(folder, out="small", store="a", runtime=Runtime(loaders=0, batch=5))
    taps_of, sizes = Backbone.taps, []

    def greedy(backbone, images, *arguments):
        sizes.append(len(images))
        if len(images) > 5:
            torch.empty(1 << 46, dtype=torch.uint8, device=backbone.device)  # as torch refuses it
        return taps_of(backbone, images, *arguments)

    monkeypatch.setattr(Backbone, "taps", greedy)
    _, found = extract(folder, out="large", store="b", runtime=Runtime(loaders=0, batch=20))
    assert max(sizes) == 20
    assert np.array_equal(found.read("cls"), expected.read("cls"))


def test_training_repeats_itself_to_the_byte_and_scores_as_on_the_cpu(tmp_path, reporter, monkeypatch):
    monkeypatch.setenv("LTDPIPE_STORE", str(tmp_path / "store"))
    view = write_view(tmp_path / "clean", *in_transitions(160, seed=0))
    files = [tmp_path / f"{name}.safetensors" for name in ("first", "again")]
    for file in files:
        head = HeadToTrain(name="ltd", settings=LtdSettings(heads=4), seed=0, out=file)
        settings = TrainSettings(lr=1e-3, epochs=3, batch=32)
        run(views=[view], validation_view=view, heads=[head], settings=settings, reporter=reporter)
    assert files[0].read_bytes() == files[1].read_bytes()
    module, table = TrainedHead.load(files[0]).module, FeatureTable.open(view)
    on_gpu = score([module], table, np.arange(160))[0]
    assert np.abs(on_gpu - score([module.cpu()], table, np.arange(160))[0]).max() < 1e-3
